"""Writes a graph module as an ONNX file, with its weights beside it.

The files hold nothing of the machine that wrote them, and the same module gives the same bytes.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import onnx
import onnx_ir
import torch
from torch import Tensor

from seqserve_export.weight_file import WeightFile

OPSET_VERSION = 21
IR_VERSION = 10
_NOISY_LOGGERS = (
    "torch.onnx._internal.exporter._registration",
    "onnxscript.optimizer._constant_folding",
)


class GraphModule(Protocol):
    """A torch module with flat inputs and outputs, see :mod:`seqserve_export.graphs`."""

    def input_names(self) -> list[str]:
        """Names in the order of ``forward``."""
        ...

    def output_names(self) -> list[str]:
        """Names in the order of the returned tuple."""
        ...

    def example(self) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        """Inputs to trace with, and which of their dimensions are dynamic."""
        ...


def write_graph(graph: GraphModule, folder: Path, name: str, weights: WeightFile) -> Path:
    """Exports a graph to ``<name>.onnx`` in a folder.

    Args:
        graph: What to export.
        folder: Where to write.
        name: Of the graph.
        weights: The folder's file of weights; takes the graph's large tensors.

    Returns:
        The graph file.
    """
    model = _trace(graph)
    weights.take(model)
    proto = onnx_ir.to_proto(model)
    _strip_notes(proto)
    proto.ir_version = IR_VERSION
    path = folder / f"{name}.onnx"
    onnx.save_model(proto, path)
    # Given a path rather than the model, the checker has no 2 GB limit. It accepts operators of
    # domains it does not know, such as com.microsoft; onnxruntime checks those when it loads them.
    onnx.checker.check_model(str(path))
    return path


def _trace(graph: GraphModule) -> onnx_ir.Model:
    assert isinstance(graph, torch.nn.Module)
    graph.eval()
    inputs, dynamic_shapes = graph.example()
    with _without_known_noise(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            inputs,
            dynamo=True,
            dynamic_shapes=dynamic_shapes,
            input_names=graph.input_names(),
            output_names=graph.output_names(),
            opset_version=OPSET_VERSION,
            verbose=False,
        )
    assert program is not None
    return program.model


@contextlib.contextmanager
def _without_known_noise() -> Iterator[None]:
    """Silences what the exporter says about itself, and nothing else."""
    # It lists the torchvision operators it leaves out because torchvision is not installed.
    # And its optimizer lists the norms of constants that it leaves to onnxruntime.
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Inputs that share a dynamic dimension share its name, which is intended.
            warnings.filterwarnings("ignore", "# The axis name: .* will not be used", UserWarning)
            # torch.export calls its own deprecated check when it copies a program.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _strip_notes(proto: onnx.ModelProto) -> None:
    """Removes traces of where in the sources a node comes from: they hold paths of this machine."""
    graph = proto.graph
    proto.ClearField("metadata_props")
    proto.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    for items in (graph.node, graph.value_info, graph.input, graph.output, graph.initializer):
        for item in items:
            item.ClearField("metadata_props")
            item.ClearField("doc_string")
