"""Layers whose weights are bytes.

Weights have a scale for each output channel (embeddings: for each token) and are symmetric. Inputs
of linear layers become unsigned bytes in one of two forms; in both, a row's result depends on
nothing but the row:

* **static** (:class:`QuantizedLinear`): one scale and zero point for the layer, smoothed if its
  inputs are divided by factors first, see :mod:`seqserve_export.smoothing`.
* **rowwise** (:class:`RowwiseLinear`): the same, after each row was divided by its own largest
  magnitude.

While exporting, a layer becomes ``QuantizeLinear`` and ``com.microsoft.MatMulIntegerToFloat``.

Shapes: K inputs, N outputs, V vocabulary, M model width.

Source: Jacob et al. 2018, arXiv:1712.05877, section 2 (affine quantization of activations); the
operators: onnxruntime ``docs/ContribOperators.md``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class QuantizedLinear(nn.Module):
    """A linear layer that multiplies bytes; what goes in and comes out is fp32."""

    weight: Tensor
    weight_scales: Tensor
    input_scale: Tensor
    input_zero: Tensor
    input_multipliers: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        linear: nn.Linear,
        input_scale: float,
        input_zero: int,
        factors: Tensor | None = None,
    ) -> None:
        """Takes over a layer.

        Args:
            linear: The layer.
            input_scale: Size of one step of its inputs, after they were divided.
            input_zero: The byte that stands for 0.
            factors: What each input is divided by, [K], all above 0; None for 1.
        """
        super().__init__()
        weight = linear.weight.detach()
        if factors is not None:
            weight = weight * factors
        self.register_buffer("input_multipliers", None if factors is None else 1 / factors)
        weight, scales = quantize_rows(weight)
        self.register_buffer("weight", weight.t().contiguous())  # [K, N]
        self.register_buffer("weight_scales", scales)  # [N]
        self.register_buffer("input_scale", torch.tensor(input_scale))
        self.register_buffer("input_zero", torch.tensor(input_zero, dtype=torch.uint8))
        bias = None if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", bias)

    def forward(self, states: Tensor) -> Tensor:
        """Maps [..., K] to [..., N]."""
        return self._multiply(self._smooth(states), self.bias)

    def _smooth(self, states: Tensor) -> Tensor:
        return states if self.input_multipliers is None else states * self.input_multipliers

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
        states = self._smooth(states)
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


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantizes the rows of a matrix: bytes from -127 to 127, and a scale for each row."""
    scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny) / 127
    return torch.round(weight / scales[:, None]).to(torch.int8), scales


def measure_rows(states: Tensor) -> Tensor:
    """Largest magnitudes of rows, [..., K] to [..., 1]; above 0 for a row of zeros, too."""
    return states.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(states.dtype).tiny)
