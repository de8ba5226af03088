"""int8: the same model with linear layers, embeddings and caches in 8-bit integers.

Weights have a scale for each output channel (embeddings: for each token) and are symmetric. Inputs
of linear layers become unsigned bytes with one fixed scale and zero point for the layer, chosen on
samples; so a row's result depends on nothing but the row. A layer whose outputs suffer too much
stays in fp32.

Keys and values of a decoder are kept as signed bytes with one fixed step for each of their
dimensions: reading them is what attention spends its time on while decoding.

While exporting, a layer becomes ``QuantizeLinear`` and ``com.microsoft.MatMulIntegerToFloat``.

Shapes: K inputs, N outputs, V vocabulary, M model width.

Source: Jacob et al. 2018, arXiv:1712.05877, section 2 (affine quantization of activations); the
operators: onnxruntime ``docs/ContribOperators.md``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqserve_export.calibration import Calibration
from seqserve_export.layers import CrossAttention, DecoderLayer, SelfAttention

MAX_RELATIVE_ERROR = 0.1
"""Layers whose outputs on samples would be further off stay in fp32."""
_GOOD_RELATIVE_ERROR = 0.01
"""No other range is tried once the outputs are this close."""
_CLIPPED_SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Parts of the range of a layer's inputs that are tried as its 256 steps."""
_CACHE_MARGIN = 1.2
"""Keys and values may be this much larger than on the samples before they are clipped."""


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
        if torch.onnx.is_in_onnx_export():
            return self._exported(states)
        quantized = torch.round(states / self.input_scale) + self.input_zero
        centred = quantized.clamp(0, 255) - self.input_zero
        # In fp32 the sums of some thousand products of bytes are exact but for the last bit.
        sums = centred @ self.weight.float()
        outputs = sums * (self.input_scale * self.weight_scales)
        return outputs if self.bias is None else outputs + self.bias

    def _exported(self, states: Tensor) -> Tensor:
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
                self.bias,
            ],
            dtype=states.dtype,
            shape=(*states.shape[:-1], self.weight.shape[1]),
            version=1,
        )


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


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantizes the rows of a matrix: bytes from -127 to 127, and a scale for each row."""
    scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny) / 127
    return torch.round(weight / scales[:, None]).to(torch.int8), scales


@torch.no_grad()
def quantize(model: nn.Module, calibration: Calibration) -> list[str]:
    """Quantizes a model, in place.

    Args:
        model: In fp32.
        calibration: What goes through its layers on samples.

    Returns:
        Names of the layers that stay in fp32.
    """
    kept = []
    embeddings: dict[nn.Module, QuantizedEmbedding] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        match module:
            case nn.Linear():
                quantized = _quantize_linear(module, calibration.inputs(name))
                if quantized is None:
                    kept.append(name)
                else:
                    model.set_submodule(name, quantized)
            case nn.Embedding() if name.endswith("embedding.token"):
                if module not in embeddings:
                    embeddings[module] = QuantizedEmbedding(module)
                model.set_submodule(name, embeddings[module])
            case DecoderLayer():
                _quantize_cache(module.self_attention, f"{name}.self_attention", calibration)
                _quantize_cache(module.cross_attention, f"{name}.cross_attention", calibration)
    return kept


def _quantize_cache(
    attention: SelfAttention | CrossAttention, name: str, calibration: Calibration
) -> None:
    """Has keys and values kept as bytes."""
    for part in ("key", "value"):
        largest = calibration.max_outputs(f"{name}.{part}")  # [H*D]
        scales = (largest * _CACHE_MARGIN).clamp(min=torch.finfo(torch.float32).tiny) / 127
        setattr(attention.cache, f"{part}_scales", scales.view(attention.num_heads, -1))


def _quantize_linear(linear: nn.Linear, inputs: Tensor) -> QuantizedLinear | None:
    """The best of several ranges of the inputs; None if even that is too far off."""
    expected = linear(inputs)
    best: QuantizedLinear | None = None
    best_error = MAX_RELATIVE_ERROR
    low, high = min(0.0, float(inputs.min())), max(0.0, float(inputs.max()))
    for share in _CLIPPED_SHARES:
        scale = max((high - low) * share / 255, torch.finfo(torch.float32).tiny)
        zero = min(255, max(0, round(-low * share / scale)))
        candidate = QuantizedLinear(linear, scale, zero)
        norm = expected.norm().clamp(min=torch.finfo(torch.float32).tiny)
        error = float((candidate(inputs) - expected).norm() / norm)
        if error <= best_error:
            best, best_error = candidate, error
        if best_error <= _GOOD_RELATIVE_ERROR:
            break
    return best
