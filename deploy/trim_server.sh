#!/bin/sh
# Removes from /opt/seqserve what a server does not need, lists the rest as CycloneDX JSON beside it,
# and fails if the server imports anything that went. Part of the Dockerfile.
set -eu
python=/opt/seqserve/bin/python
site=$($python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# tokenizers asks for huggingface_hub only to download, which a server must not do. It goes, with all
# that came for its sake, and with what builds, exports or tests.
$python -m pip uninstall --yes \
  huggingface_hub hf-xet httpx2 httpcore2 anyio truststore idna fsspec filelock tqdm pyyaml \
  pip setuptools
rm -rf "$site/seqserve_export" /opt/seqserve/bin/seqserve-export \
  "$site/onnxruntime/quantization" "$site/onnxruntime/tools" "$site/onnxruntime/transformers" \
  "$site/numpy/f2py" "$site/numpy/_core/include" "$site/numpy/_core/lib"
find "$site" -type d -name tests -prune -exec rm -rf {} +
find "$site" \( -name '*.pyi' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -type f -delete

/opt/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
  --output-reproducible --output-format JSON --output-file /opt/seqserve/seqserve.cdx.json $python

# Compiled once and here, by content and not by time: images of the same sources are alike.
find "$site" -type d -name __pycache__ -prune -exec rm -rf {} +
PYTHONHASHSEED=0 $python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site"

/opt/seqserve/bin/seqserve serve --help > /dev/null
/opt/seqserve/bin/seqserve generate --help > /dev/null
$python -c "import seqserve.playground.playground, seqserve.tracing"
