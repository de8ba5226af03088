"""Reads the weights of a model out of an ONNX graph, by the names they had in torch.

A graph that torch traced tells of every weight where it comes from:

==================================================  ===========================================
in the graph                                        weight
==================================================  ===========================================
initializer ``a.b.bias``                            ``a.b.bias``
initializer ``a.b.bias_merged_0``                   ``a.b.bias``; two decoders share it
``Identity`` with the output ``a.c.bias``           ``a.c.bias``; both had the same numbers
node ``/a/b/MatMul`` with ``onnx::MatMul_7``        ``a.b.weight``, transposed
node ``/a/b/MatMul`` with a ``Transpose`` of it     ``a.b.weight``
node ``/a/b/Gemm`` or ``/a/b/Gather``               ``a.b.weight``, if it has no name of its own
node ``/Add`` with a constant of two dimensions     ``final_logits_bias``
==================================================  ===========================================

That this is right, is not taken on trust: see :mod:`seqserve_export.onnx_reference`.

Source: ``torch.onnx.export`` with ``dynamo=False``, which Optimum uses; ``merge_decoders`` of
``optimum-onnx`` 0.1.0.
"""

import re
from pathlib import Path

import numpy as np
import onnx_ir
import torch
from torch import Tensor

from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.onnx_graph import EXPORT_COMMAND, read_nodes

_FINAL_BIAS = "final_logits_bias"
_TORCH_NAME = re.compile(rf"([A-Za-z_]\w*\.[\w.]+?|{_FINAL_BIAS})(?:_merged_\d+)?")
"""Without a point, it is the name of a computed value."""
_SCOPED = re.compile(r"/(.+)/[A-Z]\w*")
_ROOT_SUM = re.compile(r"/Add(_\d+)?")
_CALL_NUMBER = re.compile(r"_\d+(?=\.|$)")
_WEIGHT_INPUTS = {"MatMul": 1, "Gemm": 1, "Gather": 0}
"""Which input of a node can be the weight of a module."""


def read_graph_weights(path: Path, *, is_head_tied: bool) -> dict[str, Tensor]:
    """Reads the weights of one graph.

    Args:
        path: The graph; its external data lies beside it.
        is_head_tied: Whether an output layer that equals an embedding table is left out.

    Raises:
        UnsupportedError: The graph is quantized, fused, of half precision, or without names.
        CheckpointError: The file cannot be read.
    """
    nodes = read_nodes(path)
    try:
        return _GraphWeights(path, nodes).read(is_head_tied=is_head_tied)
    except (OSError, ValueError) as error:
        # The external data is read only now.
        raise CheckpointError(f"the weights of {path} cannot be read: {error}") from error


class _GraphWeights:
    """The weights found so far."""

    def __init__(self, path: Path, nodes: list[onnx_ir.Node]) -> None:
        self._path = path
        self._nodes = nodes
        self._tensors: dict[int, Tensor] = {}
        self._weights: dict[str, Tensor] = {}

    def read(self, *, is_head_tied: bool) -> dict[str, Tensor]:
        """Reads all."""
        for node in self._nodes:
            for value in node.inputs:
                self._add_named(value)
        tables = self._find_tables() if is_head_tied else []
        unnamed = []
        for node in self._nodes:
            if node.op_type == "Add" and _ROOT_SUM.fullmatch(node.name or ""):
                self._add_final_bias(node)
            found = self._find_weight(node)
            if found is None:
                continue
            weight, initializer = found
            scope = _SCOPED.fullmatch(node.name or "")
            if scope is None:
                unnamed.append(f"{initializer.name} of the node {node.name!r}")
            elif node.op_type != "MatMul" or not _is_among(weight, tables):
                self._add_scoped(scope[1].replace("/", ".") + ".weight", weight)
        if unnamed:
            raise UnsupportedError(
                f"{self._path} does not tell what {len(unnamed)} of its weights are for, such as "
                f"{unnamed[0]}, since its nodes have lost the names that torch gave them; "
                f"re-export with {EXPORT_COMMAND}, or use the original folder with "
                "model.safetensors"
            )
        return self._weights

    def _add_named(self, value: onnx_ir.Value | None) -> None:
        """Adds an initializer, or an ``Identity`` of one, that has a name of torch."""
        initializer, is_transposed = _trace(value)
        if value is None or initializer is None or is_transposed or not _is_float(initializer):
            return
        for name in (_to_torch_name(value), _to_torch_name(initializer)):
            if name is not None:
                self._add(name, self._to_tensor(initializer))

    def _add_scoped(self, name: str, weight: Tensor) -> None:
        """Adds the weight of a module; a second call of the module has a number of its own."""
        first = self._weights.get(_CALL_NUMBER.sub("", name))
        if first is None or not _is_among(weight, [first]):
            self._add(name, weight)

    def _find_tables(self) -> list[Tensor]:
        """The embedding tables."""
        tables = (_trace(node.inputs[0])[0] for node in self._nodes if node.op_type == "Gather")
        return [
            self._to_tensor(table)
            for table in tables
            if table is not None and _is_float(table, num_dimensions=2)
        ]

    def _find_weight(self, node: onnx_ir.Node) -> tuple[Tensor, onnx_ir.Value] | None:
        """The weight of a node that has no name of its own, or a second use of one that has."""
        if node.op_type not in _WEIGHT_INPUTS:
            return None
        initializer, is_transposed = _trace(node.inputs[_WEIGHT_INPUTS[node.op_type]])
        if initializer is None or not _is_float(initializer, num_dimensions=2):
            return None
        has_name = _to_torch_name(initializer) is not None
        if has_name and not (node.op_type == "MatMul" and is_transposed):
            return None
        tensor = self._to_tensor(initializer)
        # torch holds weights of linear layers as [outputs, inputs]; these take the other.
        if node.op_type == "MatMul" or _is_plain_gemm(node):
            is_transposed = not is_transposed
        return tensor.T if is_transposed else tensor, initializer

    def _add_final_bias(self, node: onnx_ir.Node) -> None:
        """Adds what the BART line adds to its logits [1, V], a constant without a name."""
        for value in node.inputs:
            initializer, _ = _trace(value)
            if initializer is None or _to_torch_name(initializer) is not None:
                continue
            if _is_float(initializer, num_dimensions=2):
                self._add(_FINAL_BIAS, self._to_tensor(initializer))

    def _add(self, name: str, weight: Tensor) -> None:
        known = self._weights.setdefault(name, weight)
        if known is not weight and not (
            known.shape == weight.shape and bool((known == weight).all())
        ):
            raise CheckpointError(f"{self._path} holds two different tensors for {name}")

    def _to_tensor(self, initializer: onnx_ir.Value) -> Tensor:
        key = id(initializer)
        if key not in self._tensors:
            assert initializer.const_value is not None
            # A copy: the array may be the mapped file, which is not to be written to.
            self._tensors[key] = torch.from_numpy(np.array(initializer.const_value.numpy()))
        return self._tensors[key]


def _trace(value: onnx_ir.Value | None) -> tuple[onnx_ir.Value | None, bool]:
    """The initializer that a value is, through copies and transpositions.

    Returns:
        The initializer, or None if it is computed; whether it is transposed on the way.
    """
    is_transposed = False
    while value is not None and not value.is_initializer():
        producer = value.producer()
        if producer is None or producer.op_type not in ("Identity", "Transpose"):
            return None, False
        is_transposed ^= producer.op_type == "Transpose"
        value = producer.inputs[0]
    return value, is_transposed


def _to_torch_name(value: onnx_ir.Value) -> str | None:
    match = _TORCH_NAME.fullmatch(value.name or "")
    return None if match is None else match[1]


def _is_plain_gemm(node: onnx_ir.Node) -> bool:
    return node.op_type == "Gemm" and not node.attributes.get_int("transB", 0)


def _is_float(value: onnx_ir.Value, num_dimensions: int | None = None) -> bool:
    tensor = value.const_value
    if tensor is None or not tensor.dtype.is_floating_point():
        return False
    return num_dimensions is None or len(tensor.shape) == num_dimensions


def _is_among(weight: Tensor, tables: list[Tensor]) -> bool:
    return any(weight.shape == table.shape and torch.equal(weight, table) for table in tables)
