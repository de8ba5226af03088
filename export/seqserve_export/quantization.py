"""int8: the same model with linear layers, embeddings and caches in 8-bit integers.

:mod:`seqserve_export.quantized_layers` has the two forms a linear layer can take. Which one it
takes, its outputs on samples decide:

* **static**: one scale and zero point, chosen on samples. The fastest form.
* **smoothed**: the same, with a factor for each input; costs one product for each.
* **rowwise**: rows of very different sizes keep their steps.

A layer is static, smoothed where that pays, if that is close enough or no worse than rowwise; one
whose outputs suffer too much in all forms stays in fp32.

Keys and values of a decoder are kept as signed bytes with one fixed step for each of their
dimensions: reading them is what attention spends its time on while decoding.

Shapes: K inputs, N rows of samples, H heads, D head size.
"""

import torch
from torch import Tensor, nn

from seqserve.manifest import LayerForm, LayerRecord
from seqserve_export.calibration import Calibration
from seqserve_export.errors import CheckpointError
from seqserve_export.layers import DecoderLayer
from seqserve_export.multi_head_attention import CrossAttention, SelfAttention
from seqserve_export.quantized_layers import (
    QuantizedEmbedding,
    QuantizedLinear,
    RowwiseLinear,
    measure_rows,
)
from seqserve_export.smoothing import STRENGTHS, make_factors

MAX_STATIC_ERROR = 0.02
"""Layers whose outputs on samples would be further off with static scales try rowwise ones."""
MAX_RELATIVE_ERROR = 0.1
"""Layers whose outputs on samples would be further off in all forms stay in fp32."""
_WORTHWHILE = 0.75
"""A layer is smoothed only if its error is at most this part of what it is otherwise."""
_GOOD_RELATIVE_ERROR = 0.01
"""No other range is tried once the outputs are this close."""
_LEAST_NORM = 1e-3
"""Rows with outputs smaller than that, as a share of the usual norm, are measured as if larger."""
_CLIPPED_SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Parts of the range of a layer's inputs that are tried as its 256 steps."""
_CACHE_MARGIN = 1.2
"""Keys and values may be this much larger than on the samples before they are clipped."""
_CACHE_SPREADS = 4.0
"""And at least this many times their root mean square; a step is then 3 % of that."""


def measure_error(expected: Tensor, actual: Tensor) -> float:
    """How far outputs are off, as a share of their norm: of all rows together or of a row alone.

    The larger counts, where alone means the mean over rows [N, K]. Together, some rows of great
    size would hide that the others are lost; alone, many small ones that the great ones are.
    """
    difference, norms = actual - expected, expected.norm(dim=1)
    together = difference.norm() / expected.norm().clamp(min=torch.finfo(torch.float32).tiny)
    # Nobody misses what is in a row of next to nothing.
    least = norms.square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny) * _LEAST_NORM
    alone = (difference.norm(dim=1) / torch.maximum(norms, least)).mean()
    return float(torch.maximum(together, alone))


@torch.no_grad()
def quantize(model: nn.Module, calibration: Calibration) -> list[LayerRecord]:
    """Quantizes a model, in place.

    Args:
        model: In fp32.
        calibration: What goes through its layers on samples.

    Returns:
        What became of each linear layer.

    Raises:
        CheckpointError: A layer puts out numbers that are not finite.
    """
    records = []
    embeddings: dict[nn.Module, QuantizedEmbedding] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        match module:
            case nn.Linear():
                quantized, record = _quantize_linear(name, module, calibration)
                model.set_submodule(name, quantized)
                records.append(record)
            case nn.Embedding() if name.endswith("embedding.token"):
                if module not in embeddings:
                    embeddings[module] = QuantizedEmbedding(module)
                model.set_submodule(name, embeddings[module])
            case DecoderLayer():
                _quantize_cache(module.self_attention, f"{name}.self_attention", calibration)
                _quantize_cache(module.cross_attention, f"{name}.cross_attention", calibration)
    return records


def _quantize_cache(
    attention: SelfAttention | CrossAttention, name: str, calibration: Calibration
) -> None:
    """Has keys and values kept as bytes."""
    for part in ("key", "value"):
        layer = f"{name}.{part}"
        largest = calibration.max_outputs(layer) * _CACHE_MARGIN  # [H*D]
        # A few samples seldom show how far a dimension goes; its spread, and that of all, do.
        squares = calibration.mean_square_outputs(layer)
        spread = torch.maximum(squares, squares.mean()).sqrt() * _CACHE_SPREADS
        scales = torch.maximum(largest, spread).clamp(min=torch.finfo(torch.float32).tiny) / 127
        setattr(attention.cache, f"{part}_scales", scales.view(attention.num_heads, -1))


def _quantize_linear(
    name: str, linear: nn.Linear, calibration: Calibration
) -> tuple[nn.Module, LayerRecord]:
    """The first form that is close enough; the layer itself if none is."""
    inputs, sizes = calibration.inputs(name), calibration.max_inputs(name)
    expected = linear(inputs)
    if not expected.isfinite().all():
        raise CheckpointError(
            f"layer {name} puts out numbers that are not finite; its weights, or those of a layer "
            "before it, are damaged"
        )
    form: LayerForm = "static"
    quantized, error = _choose_smoothing(linear, QuantizedLinear, inputs, sizes, expected)
    if quantized.input_multipliers is not None:
        form = "smoothed"
    if error > MAX_STATIC_ERROR:
        rowwise, rowwise_error = _choose_smoothing(linear, RowwiseLinear, inputs, sizes, expected)
        if rowwise_error < error:
            quantized, error, form = rowwise, rowwise_error, "rowwise"
    if error > MAX_RELATIVE_ERROR:
        return linear, LayerRecord(name=name, form="fp32", relative_error=error)
    return quantized, LayerRecord(name=name, form=form, relative_error=error)


def _choose_smoothing(
    linear: nn.Linear,
    form: type[QuantizedLinear],
    inputs: Tensor,
    sizes: Tensor,
    expected: Tensor,
) -> tuple[QuantizedLinear, float]:
    """A layer in some form with the best factors, and how far its outputs are off.

    Args:
        linear: The layer.
        form: Static or rowwise.
        inputs: What goes into it, [N, K].
        sizes: Largest magnitudes of each input, [K], also of rows that are not among these.
        expected: What should come out.
    """
    best, least = _choose_range(linear, form, inputs, expected, None)
    if least <= _GOOD_RELATIVE_ERROR:
        return best, least
    smoothed = [
        _choose_range(linear, form, inputs, expected, make_factors(linear, sizes, strength))
        for strength in STRENGTHS
    ]
    layer, error = min(smoothed, key=lambda pair: pair[1])
    return (layer, error) if error <= _WORTHWHILE * least else (best, least)


def _choose_range(
    linear: nn.Linear,
    form: type[QuantizedLinear],
    inputs: Tensor,
    expected: Tensor,
    factors: Tensor | None,
) -> tuple[QuantizedLinear, float]:
    """Tries several ranges of what becomes bytes; returns the best, and how far it is off."""
    quantized = inputs if factors is None else inputs / factors
    if form is RowwiseLinear:
        quantized = quantized / measure_rows(quantized)
    tiny = torch.finfo(torch.float32).tiny
    low, high = min(0.0, float(quantized.min())), max(0.0, float(quantized.max()))
    tried: list[tuple[QuantizedLinear, float]] = []
    for share in _CLIPPED_SHARES:
        scale = max((high - low) * share / 255, tiny)
        zero = min(255, max(0, round(-low * share / scale)))
        candidate = form(linear, scale, zero, factors)
        error = measure_error(expected, candidate(inputs))
        tried.append((candidate, error))
        if error <= _GOOD_RELATIVE_ERROR:
            break
    return min(tried, key=lambda pair: pair[1])
