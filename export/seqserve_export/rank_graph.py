"""The graph that ranks a vocabulary: ``logits, count -> tokens, log_probabilities``.

Beam search wants the few best tokens of every row at every step. ONNX's ``TopK`` over a whole
vocabulary takes longer than all else here together. So the vocabulary is cut into groups of
neighbours: the ``count`` groups with the largest maxima hold the ``count`` largest values, and only
these are looked at. Of equal values the lower token comes first: groups are taken up in their
order, and ``TopK`` prefers the lower index.

The graph has no weights. It is written operator by operator, since the number of tokens comes in at
run time, which torch does not trace.
"""

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from seqserve_export.onnx_writer import IR_VERSION, OPSET_VERSION

_GROUP_SIZE = 128
_MIN_GROUP_SIZE, _MAX_GROUP_SIZE = 48, 320


def choose_group_size(vocabulary_size: int) -> int:
    """The divisor of the vocabulary nearest to 128, if one is near: groups then need no padding."""
    divisors = (
        size
        for size in range(_MIN_GROUP_SIZE, min(_MAX_GROUP_SIZE, vocabulary_size) + 1)
        if vocabulary_size % size == 0
    )
    return min(divisors, key=lambda size: abs(size - _GROUP_SIZE), default=_GROUP_SIZE)


def write_rank_graph(folder: Path, vocabulary_size: int) -> Path:
    """Writes ``rank.onnx`` to a folder.

    Inputs are logits [B, V] and count [1], at most V; outputs are tokens [B, count], best first,
    and their log-probabilities [B, count].

    Args:
        folder: Where to write.
        vocabulary_size: V.

    Returns:
        The graph file.
    """
    group_size = choose_group_size(vocabulary_size)
    num_missing = -vocabulary_size % group_size
    constants = {
        "axis": np.array([2]),
        "size": np.array([group_size]),
        "groups_shape": np.array([0, -1, group_size]),
        "flat_shape": np.array([0, -1]),
    }
    scores = "scores"
    nodes = [helper.make_node("LogSoftmax", ["logits"], [scores], axis=1)]
    if num_missing:
        # With what is never better than a token; it costs a copy.
        constants["pads"] = np.array([0, 0, 0, num_missing])
        constants["nothing"] = np.array(-math.inf, np.float32)
        nodes.append(helper.make_node("Pad", [scores, "pads", "nothing"], ["padded"]))
        scores = "padded"
    nodes += [
        helper.make_node("Reshape", [scores, "groups_shape"], ["groups"]),
        helper.make_node("ReduceMax", ["groups", "axis"], ["maxima"], keepdims=0),
        # As many groups as tokens are wanted, or all.
        helper.make_node("Shape", ["maxima"], ["num_groups"], start=1),
        helper.make_node("Min", ["count", "num_groups"], ["num_taken"]),
        helper.make_node("TopK", ["maxima", "num_taken"], ["best_maxima", "best_groups"], axis=1),
        helper.make_node(
            "TopK", ["best_groups", "num_taken"], ["taken", "order"], axis=1, largest=0
        ),
        helper.make_node("Unsqueeze", ["taken", "axis"], ["places"]),
        helper.make_node("GatherND", ["groups", "places"], ["members"], batch_dims=1),
        helper.make_node("Reshape", ["members", "flat_shape"], ["flat"]),
        helper.make_node("TopK", ["flat", "count"], ["log_probabilities", "found"], axis=1),
        # From places among the members of the groups to tokens.
        helper.make_node("Div", ["found", "size"], ["which"]),
        helper.make_node("Mod", ["found", "size"], ["offset"]),
        helper.make_node("GatherElements", ["taken", "which"], ["group"], axis=1),
        helper.make_node("Mul", ["group", "size"], ["first"]),
        helper.make_node("Add", ["first", "offset"], ["tokens"]),
    ]
    graph = helper.make_graph(
        nodes,
        "rank",
        [
            helper.make_tensor_value_info(
                "logits", TensorProto.FLOAT, ["batch_size", vocabulary_size]
            ),
            helper.make_tensor_value_info("count", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch_size", "count"]),
            helper.make_tensor_value_info(
                "log_probabilities", TensorProto.FLOAT, ["batch_size", "count"]
            ),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET_VERSION)], ir_version=IR_VERSION
    )
    path = folder / "rank.onnx"
    onnx.save_model(model, path)
    onnx.checker.check_model(str(path))
    return path
