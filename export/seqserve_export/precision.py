"""The number formats a model can be served in, and how closely its graphs must then match.

fp32 graphs are held against torch in fp32. The others are held against torch in the same format,
which shows that the graphs are right, and against the original in fp32, which shows what the format
costs: encoders by :mod:`seqserve_export.quality_gate`, which turns layers back to fp32 where that
is too much, models that generate by a tolerance.
"""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

import torch
from torch import nn

from seqserve.manifest import LayerRecord
from seqserve_export.calibration import Calibration
from seqserve_export.half_precision import to_half
from seqserve_export.quantization import measure_error, quantize

Dtype = Literal["fp32", "int8", "fp16"]
_Model = TypeVar("_Model", bound=nn.Module)

DTYPES: tuple[Dtype, ...] = ("fp32", "int8", "fp16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tolerances:
    """Most that may differ, see :class:`seqserve_export.verification.Comparison`."""

    graph: float
    """Of torch and ONNX in the same format."""
    quality: float
    """Of the original in fp32 and ONNX, as a share of the norm of logits, for models that generate;
    encoders have their own gate."""
    encoder: float
    """Of torch and ONNX in the same format, for states and logits of encoders."""
    embedding: float
    """The same for embeddings of length 1."""
    cosine: float
    """That the cosine of these may fall short of 1."""


TOLERANCES: dict[Dtype, Tolerances] = {
    "fp32": Tolerances(graph=1e-4, quality=1e-4, encoder=1e-4, embedding=1e-5, cosine=1e-4),
    "fp16": Tolerances(graph=5e-2, quality=2e-2, encoder=2e-2, embedding=1e-2, cosine=1e-3),
    # A last bit in fp32 decides between two bytes, and what follows shows it, most of all on the
    # random sources and targets that graphs are compared on: in all-MiniLM-L6-v2 states come out
    # 0.08 of their norm apart, embeddings 0.013, their cosines 0.0035.
    "int8": Tolerances(graph=0.5, quality=0.35, encoder=0.2, embedding=0.1, cosine=1e-2),
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


def rank_layers(
    reduction: Reduction[_Model], original: _Model, calibration: Calibration
) -> tuple[str, ...]:
    """Names of the linear layers that are not in fp32, the one that lost most by itself first."""
    recorded = {layer.name: layer.relative_error for layer in reduction.layers or ()}
    errors: dict[str, float] = {}
    for name in _name_layers(original):
        layer = reduction.model.get_submodule(name)
        if isinstance(layer, nn.Linear):
            continue
        error = recorded.get(name)
        if error is None:
            inputs = calibration.inputs(name)
            with torch.no_grad():
                error = measure_error(original.get_submodule(name)(inputs), layer(inputs))
        errors[name] = error if math.isfinite(error) else math.inf
    return tuple(sorted(errors, key=lambda name: errors[name], reverse=True))


def turn_back(
    reduction: Reduction[_Model], original: _Model, names: Sequence[str]
) -> Reduction[_Model]:
    """Puts linear layers of the original in the places of reduced ones, in place."""
    for name in names:
        reduction.model.set_submodule(name, original.get_submodule(name))
    return _describe(reduction.model, reduction, original, {*reduction.fp32_layers, *names})


def restore(reduction: Reduction[_Model], original: _Model) -> Reduction[_Model]:
    """The original itself: embeddings and attention are in fp32 again, too."""
    return _describe(original, reduction, original, set(_name_layers(original)))


def count_layers(model: nn.Module) -> int:
    """How many linear layers a model in fp32 has."""
    return len(_name_layers(model))


def _name_layers(model: nn.Module) -> list[str]:
    modules = model.named_modules(remove_duplicate=False)
    return [name for name, module in modules if isinstance(module, nn.Linear)]


def _describe(
    model: _Model, reduction: Reduction[_Model], original: _Model, fp32_layers: set[str]
) -> Reduction[_Model]:
    layers = None
    if reduction.layers is not None:
        layers = tuple(
            layer.model_copy(update={"form": "fp32"}) if layer.name in fp32_layers else layer
            for layer in reduction.layers
        )
    names = tuple(name for name in _name_layers(original) if name in fp32_layers)
    return Reduction(model=model, fp32_layers=names, layers=layers)
