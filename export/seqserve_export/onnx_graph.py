"""Reads ONNX graphs that others exported, and refuses those whose weights are gone."""

import re
from collections.abc import Sequence
from pathlib import Path

import onnx_ir

from seqserve_export.errors import CheckpointError, UnsupportedError

EXPORT_COMMAND = "`optimum-cli export onnx --model ID --no-post-process DIR`"
"""What the messages advise."""
_QUANTIZED = re.compile(r"Quant|QLinear|Integer|NBits|^Q[A-Z]")
_OWN_DOMAINS = ("", "ai.onnx")
_HALVES = (onnx_ir.DataType.FLOAT16, onnx_ir.DataType.BFLOAT16)


def read_signature(path: Path) -> tuple[list[str], list[str]]:
    """Reads what inputs and outputs of a graph are called.

    Raises:
        CheckpointError: The file cannot be read.
    """
    graph = _load(path).graph
    inputs, outputs = (
        [value.name or "" for value in values] for values in (graph.inputs, graph.outputs)
    )
    return inputs, outputs


def read_nodes(path: Path) -> list[onnx_ir.Node]:
    """Reads the nodes of a graph and of the branches in it.

    Raises:
        UnsupportedError: The graph is quantized, fused, or of half precision.
        CheckpointError: The file cannot be read.
    """
    model = _load(path)
    nodes = list(onnx_ir.traversal.RecursiveGraphIterator(model.graph))
    _check_operators(path, nodes)
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None:
                _check_tensor(path, value.const_value)
    return nodes


def _load(path: Path) -> onnx_ir.Model:
    try:
        return onnx_ir.load(path)
    except Exception as error:
        # The library raises what it likes for a malformed file.
        raise CheckpointError(f"{path} is not an ONNX graph: {error}") from error


def _check_operators(path: Path, nodes: Sequence[onnx_ir.Node]) -> None:
    quantized = sorted({node.op_type for node in nodes if _QUANTIZED.search(node.op_type)})
    if quantized:
        raise UnsupportedError(
            f"{path} is quantized ({', '.join(quantized)}), and its weights in full precision are "
            f"gone; re-export with {EXPORT_COMMAND}, or use the original folder with "
            "model.safetensors, and choose int8 for what is served instead"
        )
    fused = sorted({node.op_type for node in nodes if node.domain not in _OWN_DOMAINS})
    if fused:
        raise UnsupportedError(
            f"{path} was optimized by onnxruntime ({', '.join(fused)}), which merges weights; "
            f"re-export without --optimize, with {EXPORT_COMMAND}, or use the original folder "
            "with model.safetensors"
        )


def _check_tensor(path: Path, tensor: onnx_ir.TensorProtocol) -> None:
    if isinstance(tensor, onnx_ir.ExternalTensor):
        location = str(tensor.location)
        if Path(location).name != location:
            raise CheckpointError(
                f"{path} has weights in {location!r}, which is not a file beside it"
            )
    if tensor.dtype in _HALVES:
        raise UnsupportedError(
            f"{path} is of half precision ({tensor.dtype.name}), and what it computes is too "
            f"coarse to compare with; re-export in fp32, with {EXPORT_COMMAND}, and choose fp16 "
            "for what is served instead"
        )
