"""Sparse embeddings are made of valid positions only."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from seqserve.session import open_session
from seqserve_export.heads import Head, HeadConfig
from seqserve_export.onnx_writer import IR_VERSION, OPSET_VERSION
from seqserve_export.sparse_head import SPARSE_ACTIVATIONS, SparseActivation, SparseHead

STATES = torch.tensor(
    [[[1.0, 2.0], [-3.0, 6.0], [99.0, 99.0]], [[-4.0, -4.0], [-5.0, 1.0], [-3.0, 2.0]]]
)
LENGTHS = torch.tensor([2, 3], dtype=torch.int32)


def make_head(mode: str, activation: SparseActivation) -> SparseHead:
    """A head whose logits are the states."""
    head = Head(HeadConfig(num_outputs=2, has_bias=False), 2)
    with torch.no_grad():
        head.output.weight.copy_(torch.eye(2))
    return SparseHead(head, mode, activation)  # type: ignore[arg-type]


def weigh(logit: float, activation: SparseActivation) -> float:
    """The weight of one logit."""
    weight = math.log1p(max(0.0, logit))
    return weight if activation == "relu" else math.log1p(weight)


@pytest.mark.parametrize("activation", SPARSE_ACTIVATIONS)
@pytest.mark.parametrize(
    ("mode", "logits"),
    [
        ("splade_max", [[(1,), (6,)], [(0,), (2,)]]),
        ("splade_sum", [[(1,), (2, 6)], [(0,), (1, 2)]]),
    ],
)
def test_weights_are_pooled_over_valid_positions(
    mode: str, logits: list[list[tuple[float, ...]]], activation: SparseActivation
) -> None:
    """The largest or the sum of weights; what is below zero has none."""
    with torch.no_grad():
        embeddings = make_head(mode, activation)(STATES, LENGTHS)
    expected = [[sum(weigh(one, activation) for one in entry) for entry in row] for row in logits]
    torch.testing.assert_close(embeddings, torch.tensor(expected))


@pytest.mark.parametrize("mode", ["splade_max", "splade_sum"])
def test_padding_may_hold_anything(mode: str) -> None:
    """NaN behind the end of a source does not reach its vector."""
    states = STATES.clone()
    states[0, 2] = torch.nan
    head = make_head(mode, "relu")
    with torch.no_grad():
        assert torch.equal(head(states, LENGTHS), head(STATES, LENGTHS))


def test_logarithms_in_float64_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    """Those in float32 do: at the end of a row, whose length is no multiple of 16."""
    rows = [helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, "bv") for name in "xy"]
    node = helper.make_node("Log", ["x"], ["y"])
    graph = helper.make_graph([node], "log", rows[:1], rows[1:])
    opset = helper.make_opsetid("", OPSET_VERSION)
    path = tmp_path / "log.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION), path)
    session = open_session(path, num_threads=2)
    logits = np.random.default_rng(0).normal(size=(64, 30522)).astype(np.float32)
    numbers = 1.0 + np.maximum(logits, 0).astype(np.float64)
    (together,) = session.run(["y"], {"x": numbers})
    alone = [session.run(["y"], {"x": row[None]})[0] for row in numbers]
    assert np.array_equal(np.concatenate(alone), together)
