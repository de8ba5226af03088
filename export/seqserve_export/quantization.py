"""int8: the same model with linear layers, embeddings and caches in 8-bit integers.

Weights have a scale for each output channel (embeddings: for each token) and are symmetric. Inputs
of linear layers become unsigned bytes in one of two forms; in both, a row's result depends on
nothing but the row:

* **static**: one scale and zero point for the layer, chosen on samples. The fastest form.
* **rowwise**: the same, after each row was divided by its own largest magnitude. Rows of very
  different sizes keep their steps.

A layer is static where that is close enough or no worse than rowwise; one whose outputs suffer too
much in both forms stays in fp32.

Keys and values of a decoder are kept as signed bytes with one fixed step for each of their
dimensions: reading them is what attention spends its time on while decoding.

While exporting, a layer becomes ``QuantizeLinear`` and ``com.microsoft.MatMulIntegerToFloat``.

Shapes: K inputs, N outputs, V vocabulary, M model width.

Source: Jacob et al. 2018, arXiv:1712.05877, section 2 (affine quantization of activations); the
operators: onnxruntime ``docs/ContribOperators.md``.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqserve.manifest import LayerRecord
from seqserve_export.calibration import Calibration
from seqserve_export.errors import CheckpointError
from seqserve_export.layers import CrossAttention, DecoderLayer, SelfAttention

MAX_STATIC_ERROR = 0.02
"""Layers whose outputs on samples would be further off with static scales try rowwise ones."""
MAX_RELATIVE_ERROR = 0.1
"""Layers whose outputs on samples would be further off in both forms stay in fp32."""
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


class QuantizedLinear(nn.Module):
    """A linear layer that multiplies bytes; what goes in and comes out is fp32."""

    weight: Tensor
    weight_scales: Tensor
    input_scale: Tensor
    input_zero: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, input_scale: float, input_zero: int) -> None:
        """Takes over a layer.

        Args:
            linear: The layer.
            input_scale: Size of one step of its inputs.
            input_zero: The byte that stands for 0.
        """
        super().__init__()
        weight, scales = quantize_rows(linear.weight.detach())
        self.register_buffer("weight", weight.t().contiguous())  # [K, N]
        self.register_buffer("weight_scales", scales)  # [N]
        self.register_buffer("input_scale", torch.tensor(input_scale))
        self.register_buffer("input_zero", torch.tensor(input_zero, dtype=torch.uint8))
        bias = None if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", bias)

    def forward(self, states: Tensor) -> Tensor:
        """Maps [..., K] to [..., N]."""
        return self._multiply(states, self.bias)

    def _multiply(self, states: Tensor, bias: Tensor | None) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return self._exported(states, bias)
        quantized = torch.round(states / self.input_scale) + self.input_zero
        centred = quantized.clamp(0, 255) - self.input_zero
        # In fp32 the sums of some thousand products of bytes are exact but for the last bit.
        sums = centred @ self.weight.float()
        outputs = sums * (self.input_scale * self.weight_scales)
        return outputs if bias is None else outputs + bias

    def _exported(self, states: Tensor, bias: Tensor | None) -> Tensor:
        quantized = torch.onnx.ops.symbolic(
            "QuantizeLinear",
            [states, self.input_scale, self.input_zero],
            dtype=torch.uint8,
            shape=states.shape,
        )
        return torch.onnx.ops.symbolic(
            "com.microsoft::MatMulIntegerToFloat",
            [
                quantized,
                self.weight,
                self.input_scale,
                self.weight_scales,
                self.input_zero,
                None,
                bias,
            ],
            dtype=states.dtype,
            shape=(*states.shape[:-1], self.weight.shape[1]),
            version=1,
        )


class RowwiseLinear(QuantizedLinear):
    """A quantized layer that sees each row divided by the row's own largest magnitude."""

    def forward(self, states: Tensor) -> Tensor:
        """Maps [..., K] to [..., N]."""
        magnitudes = measure_rows(states)
        outputs = self._multiply(states / magnitudes, None) * magnitudes
        return outputs if self.bias is None else outputs + self.bias


class QuantizedEmbedding(nn.Module):
    """Vectors kept as bytes and handed out in fp32."""

    weight: Tensor
    scales: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        weight, scales = quantize_rows(embedding.weight.detach())
        self.register_buffer("weight", weight)  # [V, M]
        self.register_buffer("scales", scales)  # [V]

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens [...] to vectors [..., M]."""
        vectors = functional.embedding(tokens, self.weight).float()
        return vectors * functional.embedding(tokens, self.scales[:, None])


def measure_rows(states: Tensor) -> Tensor:
    """Largest magnitudes of rows, [..., K] to [..., 1]; above 0 for a row of zeros, too."""
    return states.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(states.dtype).tiny)


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


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantizes the rows of a matrix: bytes from -127 to 127, and a scale for each row."""
    scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny) / 127
    return torch.round(weight / scales[:, None]).to(torch.int8), scales


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
                quantized, record = _quantize_linear(name, module, calibration.inputs(name))
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


def _quantize_linear(name: str, linear: nn.Linear, inputs: Tensor) -> tuple[nn.Module, LayerRecord]:
    """The first form that is close enough; the layer itself if neither is."""
    expected = linear(inputs)
    if not expected.isfinite().all():
        raise CheckpointError(
            f"layer {name} puts out numbers that are not finite; its weights, or those of a layer "
            "before it, are damaged"
        )
    static, static_error = _choose_range(
        inputs, inputs, expected, functools.partial(QuantizedLinear, linear)
    )
    if static_error <= MAX_STATIC_ERROR:
        return static, LayerRecord(name=name, form="static", relative_error=static_error)
    rowwise, rowwise_error = _choose_range(
        inputs / measure_rows(inputs), inputs, expected, functools.partial(RowwiseLinear, linear)
    )
    error = min(static_error, rowwise_error)
    if error > MAX_RELATIVE_ERROR:
        return linear, LayerRecord(name=name, form="fp32", relative_error=error)
    if static_error <= rowwise_error:
        return static, LayerRecord(name=name, form="static", relative_error=error)
    return rowwise, LayerRecord(name=name, form="rowwise", relative_error=error)


def _choose_range(
    quantized: Tensor,
    inputs: Tensor,
    expected: Tensor,
    make: Callable[[float, int], QuantizedLinear],
) -> tuple[QuantizedLinear, float]:
    """Tries several ranges of what becomes bytes.

    Args:
        quantized: What becomes bytes, [N, K].
        inputs: What goes into the layer, [N, K].
        expected: What should come out.
        make: Makes the layer with a scale and a zero point.

    Returns:
        The layer with the best range, and how far its outputs are off.
    """
    tiny = torch.finfo(torch.float32).tiny
    low, high = min(0.0, float(quantized.min())), max(0.0, float(quantized.max()))
    tried: list[tuple[QuantizedLinear, float]] = []
    for share in _CLIPPED_SHARES:
        scale = max((high - low) * share / 255, tiny)
        zero = min(255, max(0, round(-low * share / scale)))
        candidate = make(scale, zero)
        error = measure_error(expected, candidate(inputs))
        tried.append((candidate, error))
        if error <= _GOOD_RELATIVE_ERROR:
            break
    return min(tried, key=lambda pair: pair[1])
