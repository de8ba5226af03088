"""Where the time of a decode step goes: by operator, for the model of the decode benchmark.

``python -m bench.step_profile`` prints it (with the paths the Makefile sets), for one thread, which
is what a lane computes with. The model must have been made by ``make bench``.
"""

import argparse
import collections
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.opus_checkpoint import make_opus_model
from seqserve.manifest import read_manifest
from seqserve.session import BoundStep, cache_names, input_dtype, open_session

_NUM_STEPS = 40
_CAPACITY = 64


def main() -> None:
    """Runs steps under the profiler and adds up the operators."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    console = Console(width=100)
    folder = make_opus_model(console).folder
    totals, counts = profile(folder, arguments.rows, arguments.threads)
    table = Table("operator", "calls", "microseconds", "share")
    whole = sum(totals.values())
    for name, total in totals.most_common():
        if total / whole >= 0.002:
            table.add_row(name, f"{counts[name]:g}", f"{total:,.0f}", f"{total / whole:.1%}")
    table.add_row("all", "", f"{whole:,.0f}", "")
    console.print(table)


def profile(
    folder: Path, num_rows: int, num_threads: int
) -> tuple[collections.Counter[str], dict[str, float]]:
    """Microseconds and calls of each operator in one step; of matrix products, by their sizes."""
    options = onnxruntime.SessionOptions
    with tempfile.TemporaryDirectory() as scratch:

        def make_options() -> onnxruntime.SessionOptions:
            made = options()
            made.enable_profiling = True
            made.profile_file_prefix = str(Path(scratch) / "step")
            return made

        with mock.patch.object(onnxruntime, "SessionOptions", make_options):
            session = open_session(
                folder / "decode.onnx", num_threads=num_threads, is_decoding=True
            )
        step = _bind(session, folder, num_rows)
        for _ in range(_NUM_STEPS):
            step.run()
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    totals: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = _describe(event["args"])
            totals[name] += event["dur"] / _NUM_STEPS
            calls[name] += 1
    return totals, {name: count / _NUM_STEPS for name, count in calls.items()}


def _describe(node: dict[str, Any]) -> str:
    name: str = node["op_name"]
    shapes: list[list[int]] = [next(iter(shape.values()), []) for shape in node["input_type_shape"]]
    if name.startswith("MatMul"):
        (output,) = (next(iter(shape.values())) for shape in node["output_type_shape"])
        return f"{name} {shapes[0][-1]} x {output[-1]}"
    if name == "GroupQueryAttention":
        return f"{name}, {'cross' if shapes[1][1] == 0 else 'self'}"
    return name


def _bind(session: onnxruntime.InferenceSession, folder: Path, num_rows: int) -> BoundStep:
    """A step of rows with 16 to 31 target tokens and 10 to 41 source tokens."""
    record = read_manifest(folder).generation
    assert record is not None
    generator = np.random.default_rng(0)
    dtype = input_dtype(session, "past_key_values.0.decoder.key")
    rows = np.arange(num_rows)
    inputs: dict[str, NDArray[Any]] = {
        "input_ids": generator.integers(0, record.target_vocabulary_size, num_rows),
        "past_lengths": (16 + rows % 16).astype(np.int32),
        "source_lengths": (10 + rows % 32).astype(np.int32),
    }
    outputs: dict[str, NDArray[Any]] = {
        "logits": np.zeros((num_rows, record.target_vocabulary_size), np.float32)
    }
    shape = (num_rows, record.num_heads, _CAPACITY, record.head_size)
    for side in ("decoder", "encoder"):
        for past, present in zip(
            cache_names("past_key_values", side, record.num_layers),
            cache_names("present", side, record.num_layers),
            strict=True,
        ):
            cache = (generator.standard_normal(shape) * 30).astype(dtype)
            inputs[past] = outputs[present] = cache
    return BoundStep(session, inputs, outputs)


if __name__ == "__main__":
    main()
