"""The model that is measured: OPUS-MT-base by its shape, with seeded random weights.

It is made by ``transformers``, exported for the server with ``--dtype int8``, and converted for
CTranslate2 from the same weights. That takes minutes, so the results are kept in a folder that git
ignores, with a fingerprint of everything they depend on.
"""

import hashlib
import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from bench.full_size import SHAPES, make_checkpoint
from bench.machine import installed_versions
from bench.workload import VOCABULARY_SIZE, MeasurementError

ROOT = Path(__file__).parents[2]
WORK = Path(__file__).parent / "work"
NAME = "opus-mt-int8"
_SHAPE = "opus-mt"
_PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript", "ctranslate2")


class OpusModel(NamedTuple):
    """The same weights in three forms."""

    checkpoint: Path
    """A folder of ``transformers``, in fp32."""
    store: Path
    """A store with the one model :data:`NAME`, in int8."""
    peer: Path
    """A folder of CTranslate2, in int8."""

    @property
    def folder(self) -> Path:
        """Of the served model."""
        return self.store / NAME / "1"


def make_opus_model(console: Console, work: Path = WORK) -> OpusModel:
    """Makes what is not there yet, or no longer what the sources would make.

    Raises:
        MeasurementError: The export or the conversion failed.
    """
    model = OpusModel(work / "checkpoint", work / "store", work / "ctranslate2")
    stamp = work / "fingerprint.json"
    fingerprint = make_fingerprint()
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == fingerprint:
        console.print(f"using the models in {work}")
        return model
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    console.rule("making the checkpoint")
    maker = multiprocessing.get_context("spawn").Process(
        target=make_checkpoint, args=(_SHAPE, model.checkpoint)
    )
    maker.start()
    maker.join()
    if maker.exitcode:
        raise MeasurementError(f"making the checkpoint ended with {maker.exitcode}")
    console.rule("exporting for the server")
    _run(
        *("seqserve_export", str(model.checkpoint), str(model.store)),
        *("--name", NAME, "--dtype", "int8", "--no-explain"),
    )
    console.rule("converting for CTranslate2")
    _run("bench.peer_conversion", str(model.checkpoint), str(model.peer))
    stamp.write_text(json.dumps(fingerprint, indent=2) + "\n", encoding="utf-8")
    return model


def make_fingerprint() -> dict[str, Any]:
    """Shape, versions, and a digest of the sources that the models depend on."""
    digest = hashlib.sha256()
    tests = ROOT / "tests"
    service = ROOT / "service" / "seqserve"
    sources = [
        *(service / name for name in ("manifest.py", "task_record.py")),
        *sorted((ROOT / "export" / "seqserve_export").rglob("*.py")),
        *sorted(tests.glob("tiny_*.py")),
        tests / "bench" / "peer_conversion.py",
    ]
    for path in sources:
        digest.update(str(path.relative_to(ROOT)).encode())
        digest.update(path.read_bytes())
    shape = SHAPES[_SHAPE]
    assert shape.settings["vocab_size"] == VOCABULARY_SIZE
    return {
        "family": shape.family,
        "settings": shape.settings,
        "sources": digest.hexdigest(),
        "versions": installed_versions(*_PACKAGES),
    }


def _run(module: str, *arguments: str) -> None:
    command = [sys.executable, "-m", module, *arguments]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise MeasurementError(f"{module} ended with {code}")
