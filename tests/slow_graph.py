"""A graph that computes for as long as its longest text is long. Depends on onnx."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from served_folders import seal

QUICK_LENGTH = 8
"""Texts of so many tokens are embedded at once; each further token takes many seconds."""
_NUM_ROUNDS = 5_000_000


def plant_delay(
    folder: Path, graph_name: str = "embed.onnx", output: str = "sentence_embedding"
) -> None:
    """Lets a graph of a model multiply matrices for nothing before it is done.

    Args:
        folder: The model.
        graph_name: The graph's file.
        output: What of it takes so long.
    """
    path = folder / graph_name
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    vector = next(one for one in graph.output if one.name == output).name
    for node in graph.node:
        node.output[:] = ["vector_alone" if name == vector else name for name in node.output]
        node.input[:] = ["vector_alone" if name == vector else name for name in node.input]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "matrix"], ["after"]),
            helper.make_node("Identity", ["condition"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [32, 32]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [32, 32]),
        ],
    )
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.zeros((32, 32), np.float32), "matrix"),
            numpy_helper.from_array(np.array(QUICK_LENGTH, np.int64), "quick_length"),
            numpy_helper.from_array(np.array(_NUM_ROUNDS, np.int64), "num_rounds"),
            numpy_helper.from_array(np.array(0, np.int64), "none"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("ReduceMax", ["source_lengths"], ["longest"], keepdims=0),
            helper.make_node("Cast", ["longest"], ["longest_wide"], to=TensorProto.INT64),
            helper.make_node("Sub", ["longest_wide", "quick_length"], ["excess"]),
            helper.make_node("Max", ["excess", "none"], ["excess_only"]),
            helper.make_node("Mul", ["excess_only", "num_rounds"], ["count"]),
            helper.make_node("Loop", ["count", "", "matrix"], ["zeros"], body=body),
            helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Add", ["vector_alone", "zero"], [vector]),
        ]
    )
    path.write_bytes(model.SerializeToString())
    seal(folder)
