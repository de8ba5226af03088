"""seqserve_export: from torch checkpoints to models that seqserve can serve."""
