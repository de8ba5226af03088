"""seqserve_export: from torch checkpoints to models that seqserve can serve."""

import os

# As in seqserve, for modules that import onnxruntime first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
