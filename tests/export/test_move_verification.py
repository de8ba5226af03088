"""Graphs that move the wrong rows, or find other tokens, are refused."""

from pathlib import Path

import onnx
import pytest
import torch

from seqserve_export.device_graphs import BestTokensGraph, MoveRowsGraph
from seqserve_export.errors import VerificationError
from seqserve_export.move_verification import compare_best_tokens, compare_moves
from seqserve_export.multi_head_attention import CacheFormat
from seqserve_export.onnx_writer import write_graph
from seqserve_export.transformer import Transformer
from seqserve_export.weight_file import WeightFile
from tiny_checkpoint import make_tiny_model


@pytest.fixture(scope="module")
def model() -> Transformer:
    """A model whose attention and caches are in half precision."""
    model = make_tiny_model(3)
    for module in model.modules():
        if isinstance(module, CacheFormat):
            module.dtype = torch.float16
    return model


def test_moves_are_exact(model: Transformer, tmp_path: Path) -> None:
    """Swaps, chains, longer and shorter origins; a graph that reads other rows is refused."""
    path = write_graph(MoveRowsGraph(model), tmp_path, "move_rows", WeightFile(tmp_path))
    comparison = compare_moves(model, path)
    assert comparison.is_bit_identical
    assert comparison.count == 20
    graph = onnx.load(path)
    for node in graph.graph.node:
        if node.op_type == "Gather":
            node.input[1] = "target_rows"
    onnx.save(graph, path)
    with pytest.raises(VerificationError, match=r"present\.0\.key from rows \[0, 1\] to \[1, 0\]"):
        compare_moves(model, path)


def test_best_tokens_are_exact(model: Transformer, tmp_path: Path) -> None:
    """A graph that finds the last of the best tokens is refused."""
    path = write_graph(BestTokensGraph(model), tmp_path, "best_tokens", WeightFile(tmp_path))
    assert compare_best_tokens(model, path).is_bit_identical
    graph = onnx.load(path)
    for node in graph.graph.node:
        if node.op_type == "ReduceMin":
            node.op_type = "ReduceMax"
    onnx.save(graph, path)
    with pytest.raises(VerificationError, match="best_tokens differs"):
        compare_best_tokens(model, path)


def test_rows_that_are_not_finite_have_no_best_token() -> None:
    """One NaN, or an infinite best, is told as -1; of equal ones the first is found."""
    inf, nan = torch.inf, torch.nan
    graph = BestTokensGraph(make_tiny_model(3, target_vocabulary_size=4))
    logits = [
        [0.0, 2.0, 2.0, 1.0],
        [1.0, nan, 0.0, 0.0],
        [0.0, inf, 1.0, 0.0],
        [-inf, 0.0, 1.0, 1.0],
        [-inf, -inf, -inf, -inf],
        [nan, nan, nan, nan],
    ]
    (tokens,) = graph(torch.tensor(logits))
    assert tokens.tolist() == [1, -1, -1, 2, -1, -1]
