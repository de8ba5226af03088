"""Exports checkpoints of published shapes with random weights, serves each, and calls it.

``make bench-export`` runs it. Each export is a process of its own, so that its largest memory can
be measured; the checkpoint is made by ``transformers`` in another one before. Vocabularies have the
published sizes, the tokenizers in them are tiny.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench.machine import describe_machine
from seqserve.client import Client
from seqserve.manifest import read_manifest
from seqserve_export.demo_server import running_server

RESULTS = Path(__file__).parent / "results" / "export.json"
TEXT = "The quick brown fox jumps over the lazy dog."


@dataclasses.dataclass(frozen=True)
class Shape:
    """A published model by its shape."""

    family: str
    """Of ``tiny_hugging_face.FAMILIES``."""
    settings: dict[str, Any]


def _bart(layers: int, size: int, heads: int, inner: int, **settings: Any) -> dict[str, Any]:
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", layers), ("attention_heads", heads), ("ffn_dim", inner))
    }
    return {"d_model": size, **sides, **settings}


SHAPES: dict[str, Shape] = {
    "opus-mt": Shape(
        "marian",
        _bart(
            6,
            512,
            8,
            2048,
            vocab_size=58101,
            decoder_vocab_size=58101,
            max_position_embeddings=512,
        ),
    ),
    "bart-base": Shape(
        "bart", _bart(6, 768, 12, 3072, vocab_size=50265, max_position_embeddings=1024)
    ),
    "t5-base": Shape(
        "t5",
        {
            "d_model": 768,
            "d_kv": 64,
            "d_ff": 3072,
            "num_layers": 12,
            "num_decoder_layers": 12,
            "num_heads": 12,
            "vocab_size": 32128,
        },
    ),
    "nllb-200-600m": Shape(
        "nllb", _bart(12, 1024, 16, 4096, vocab_size=256206, max_position_embeddings=1024)
    ),
}


def make_checkpoint(name: str, folder: Path) -> None:
    """Writes a folder; in a process of its own, since torch keeps the memory."""
    from tiny_hugging_face import make_hugging_face_folder

    shape = SHAPES[name]
    make_hugging_face_folder(shape.family, folder, is_filled=False, **shape.settings)


def export(folder: Path, store: Path, name: str, dtype: str) -> dict[str, Any]:
    """Runs the command a user would type, and watches its memory."""
    command = [sys.executable, "-m", "seqserve_export", str(folder), str(store)]
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, "--name", name, "--dtype", dtype],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    peak = _Peak(process.pid)
    output, _ = process.communicate()
    seconds, peak_bytes = time.monotonic() - started, peak.stop()
    if process.returncode:
        raise SystemExit(f"the export of {name} ended with {process.returncode}")
    Console().print(output)
    manifest = read_manifest(store / name / "1")
    return {
        "dtype": dtype,
        "seconds": round(seconds, 1),
        "checkpoint_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "served_bytes": sum(record.size_bytes for record in manifest.files.values()),
        "peak_private_bytes": peak_bytes,
        "greedy_agreement": manifest.greedy_agreement,
        "is_batch_invariant": manifest.is_batch_invariant,
        "checks": {record.check: record.max_abs_difference for record in manifest.verification},
    }


class _Peak:
    """The most memory a process has for itself; mapped files, which can be dropped, not counted."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> int:
        """Ends watching; returns the peak in bytes."""
        self._is_stopping.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._is_stopping.wait(0.05):
            try:
                memory = self._process.memory_info()
            except psutil.NoSuchProcess:
                return
            self._peak = max(self._peak, memory.rss - memory.shared)


def call(store: Path, name: str, console: Console) -> dict[str, Any]:
    """Serves the model and generates a few tokens from a text."""
    languages: dict[str, Any] = {}
    if SHAPES[name].family == "nllb":
        languages = {"source_language": "eng_Latn", "target_language": "deu_Latn"}
    with running_server(store, {}, console) as server, Client(server.target) as client:
        started = time.monotonic()
        (result,) = client.generate(TEXT, model=name, max_new_tokens=8, **languages)
        seconds = time.monotonic() - started
    return {"tokens": len(result.hypotheses[0].token_ids), "seconds": round(seconds, 3)}


def main() -> None:
    """Exports all shapes, and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="*", choices=["fp32", "int8", "fp16"], default=["fp32"])
    arguments = parser.parse_args()
    console = Console(width=100)
    results: dict[str, Any] = {}
    if RESULTS.is_file():
        results = json.loads(RESULTS.read_text(encoding="utf-8"))["exports"]
    for name in arguments.shapes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "checkpoint"
            maker = multiprocessing.get_context("spawn").Process(
                target=make_checkpoint, args=(name, folder)
            )
            maker.start()
            maker.join()
            for dtype in arguments.dtypes:
                store = Path(scratch) / dtype
                found = export(folder, store, name, dtype)
                found["call"] = call(store, name, console)
                results[f"{name} {dtype}"] = found
                shutil.rmtree(store)
    write(results)
    console.print(make_table(results))


def write(results: dict[str, Any]) -> None:
    """Writes the result file with the machine it is from."""
    content = {
        "machine": describe_machine(),
        "exports": results,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def make_table(results: dict[str, Any]) -> Table:
    """The results as the README shows them."""
    table = Table("model", "checkpoint", "served", "peak memory", "time", "largest difference")
    for name, found in results.items():
        ratio = found["peak_private_bytes"] / found["checkpoint_bytes"]
        table.add_row(
            name,
            f"{found['checkpoint_bytes'] / 1e6:,.0f} MB",
            f"{found['served_bytes'] / 1e6:,.0f} MB",
            f"{found['peak_private_bytes'] / 1e6:,.0f} MB ({ratio:.2f}x)",
            f"{found['seconds']:.0f} s",
            f"{max(found['checks'].values()):.1e}",
        )
    return table


if __name__ == "__main__":
    main()
