"""Verifies what graphs do on behalf of the server, which cannot touch the memory of a device.

One moves the rows of its caches, one finds the best tokens. Both are exact: neither computes
anything new.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from seqserve.session import available_cpus, open_session
from seqserve_export.device_graphs import BestTokensGraph, MoveRowsGraph
from seqserve_export.onnx_runner import Floats
from seqserve_export.transformer import Transformer
from seqserve_export.verification import SEED, Comparison, torch_reference

_NUM_ROWS = 6
_CAPACITY = 12


def compare_moves(model: Transformer, path: Path) -> Comparison:
    """Compares the graph, working in place, with torch: within a cache, and from others into it.

    Raises:
        VerificationError: Names the tensor that differs.
    """
    comparison = Comparison("move rows: torch and ONNX in place, exactly", 0.0)
    graph = MoveRowsGraph(model)
    session = open_session(path, num_threads=available_cpus())
    generator = np.random.default_rng(SEED)
    # Rows that swap, rows that follow each other, an origin that is longer, one that is shorter.
    for origin_capacity, source_rows, target_rows in (
        (None, [0, 1], [1, 0]),
        (None, [2, 3, 3], [1, 2, 0]),
        (2 * _CAPACITY, [1, 0], [3, 5]),
        (_CAPACITY - 1, [2], [0]),
        (1, [1, 1, 1], [0, 2, 4]),
    ):
        caches = _make_tensors(model, generator, _NUM_ROWS, _CAPACITY)
        origins = caches
        if origin_capacity is not None:
            origins = _make_tensors(model, generator, 3, origin_capacity)
        rows = np.array(source_rows), np.array(target_rows)
        with torch_reference():
            expected = graph(*map(torch.from_numpy, (*rows, *caches, *origins)))
        expected = [tensor.numpy() for tensor in expected]
        binding = session.io_binding()
        inputs = dict(zip(graph.input_names(), (*rows, *caches, *origins), strict=True))
        for name, array in inputs.items():
            binding.bind_input(name, *_place(array))
        for name, array in zip(graph.output_names(), caches, strict=True):
            binding.bind_output(name, *_place(array))
        session.run_with_iobinding(binding)
        for name, wanted, actual in zip(graph.output_names(), expected, caches, strict=True):
            comparison.add(wanted, actual, f"{name} from rows {source_rows} to {target_rows}")
    return comparison


def compare_best_tokens(model: Transformer, path: Path) -> Comparison:
    """Compares the best tokens of random logits with those torch finds.

    Raises:
        VerificationError: They differ.
    """
    comparison = Comparison("best tokens: torch and ONNX, exactly", 0.0)
    graph = BestTokensGraph(model)
    session = open_session(path, num_threads=available_cpus())
    generator = np.random.default_rng(SEED)
    shape = (_NUM_ROWS, model.config.target_vocabulary_size)
    # In half precision many are equal; what is not finite must be told of its own row alone.
    logits = generator.normal(size=shape).astype(np.float16).astype(np.float32)
    logits[1, -1] = np.nan
    logits[2, 0] = np.inf
    logits[3] = 0.0
    logits[4, :-1] = -np.inf
    with torch_reference():
        (expected,) = graph(torch.from_numpy(logits))
    (actual,) = session.run(graph.output_names(), {"logits": logits})
    comparison.add(expected.numpy().astype(np.float32), actual.astype(np.float32), "best_tokens")
    return comparison


def _make_tensors(
    model: Transformer, generator: np.random.Generator, num_rows: int, capacity: int
) -> list[Floats]:
    """Random keys and values of every layer, [R, H, P, D] each, in the format of caches."""
    config = model.config
    shape = (num_rows, config.num_heads, capacity, config.head_size)
    return [
        generator.normal(size=shape).astype(np.float16)
        for _ in range(2 * config.num_decoder_layers)
    ]


def _place(array: NDArray[np.generic]) -> tuple[str, int, np.dtype[np.generic], list[int], int]:
    """Where an array lies, as a binding takes it."""
    return "cpu", 0, array.dtype, list(array.shape), array.ctypes.data
