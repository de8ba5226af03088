"""The number formats a model can be served in, and how closely its graphs must then match.

fp32 graphs are held against torch in fp32. The others are held against torch in the same format,
which shows that the graphs are right, and against the original in fp32, which shows what the format
costs.
"""

import copy
import dataclasses
from typing import Generic, Literal, TypeVar

from torch import nn

from seqserve.manifest import LayerRecord
from seqserve_export.calibration import Calibration
from seqserve_export.half_precision import to_half
from seqserve_export.quantization import quantize

Dtype = Literal["fp32", "int8", "fp16"]
_Model = TypeVar("_Model", bound=nn.Module)

DTYPES: tuple[Dtype, ...] = ("fp32", "int8", "fp16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tolerances:
    """Most that may differ, see :class:`seqserve_export.verification.Comparison`."""

    graph: float
    """Of torch and ONNX in the same format."""
    quality: float
    """Of the original in fp32 and ONNX, as a share of the norm of logits or states."""
    embedding: float
    """Of embeddings of length 1."""
    cosine: float
    """That the cosine of two embeddings may fall short of 1."""


TOLERANCES: dict[Dtype, Tolerances] = {
    "fp32": Tolerances(graph=1e-4, quality=1e-4, embedding=1e-5, cosine=1e-4),
    "fp16": Tolerances(graph=5e-2, quality=2e-2, embedding=1e-2, cosine=1e-3),
    # A last bit in fp32 decides between two bytes, and what follows shows it, most of all on the
    # random sources and targets that graphs are compared on.
    "int8": Tolerances(graph=0.5, quality=0.35, embedding=0.2, cosine=1e-2),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reduction(Generic[_Model]):
    """A model in some format, and what that made of its linear layers."""

    model: _Model
    fp32_layers: tuple[str, ...] = ()
    """Names of those that stay in fp32 though another format was asked for."""
    layers: tuple[LayerRecord, ...] | None = None
    """All of them, in int8; None in other formats."""


def copy_in_precision(model: _Model, dtype: Dtype, calibration: Calibration) -> Reduction[_Model]:
    """Makes a copy in another format, which shares with the original what stays in fp32."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    reduced = copy.deepcopy(model, shared)
    if dtype == "fp16":
        return Reduction(model=reduced, fp32_layers=tuple(to_half(reduced, calibration)))
    layers = tuple(quantize(reduced, calibration))
    return Reduction(
        model=reduced,
        fp32_layers=tuple(layer.name for layer in layers if layer.form == "fp32"),
        layers=layers,
    )
