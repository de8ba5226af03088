"""fp16: the same model with linear layers, embeddings and attention in half precision.

The residual stream, norms and activations stay in fp32: they cost little and need the range. So
does a linear layer whose outputs come near the limit of fp16, 65504, as the feed-forward outputs of
T5 do.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqserve_export.calibration import Calibration
from seqserve_export.multi_head_attention import CacheFormat

MAX_OUTPUT = 65504 / 8
"""Layers whose outputs on samples are larger stay in fp32."""


class HalfLinear(nn.Module):
    """A linear layer that multiplies in fp16; what goes in and comes out is fp32."""

    def __init__(self, linear: nn.Linear, weight: nn.Parameter) -> None:
        """Takes over a layer.

        Args:
            linear: The layer.
            weight: Its weight in fp16, [N, K].
        """
        super().__init__()
        self.weight = weight
        self.bias: nn.Parameter | None = None
        if linear.bias is not None:
            self.bias = nn.Parameter(linear.bias.half(), requires_grad=False)

    def forward(self, states: Tensor) -> Tensor:
        """Maps [..., K] to [..., N]."""
        return functional.linear(states.half(), self.weight, self.bias).float()


class HalfEmbedding(nn.Module):
    """Vectors kept in fp16 and handed out in fp32."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens [...] to vectors [..., M]."""
        return functional.embedding(tokens, self.weight).float()


def to_half(model: nn.Module, calibration: Calibration) -> list[str]:
    """Puts a model into half precision, in place.

    Args:
        model: In fp32.
        calibration: What its layers put out on samples.

    Returns:
        Names of the layers that stay in fp32.
    """
    halves: dict[Tensor, nn.Parameter] = {}

    def halve(weight: Tensor) -> nn.Parameter:
        # A tensor that is shared stays shared.
        if weight not in halves:
            halves[weight] = nn.Parameter(weight.detach().half(), requires_grad=False)
        return halves[weight]

    kept = []
    for name, module in list(model.named_modules(remove_duplicate=False)):
        match module:
            case nn.Linear() if calibration.max_output(name) > MAX_OUTPUT:
                kept.append(name)
            case nn.Linear():
                model.set_submodule(name, HalfLinear(module, halve(module.weight)))
            case nn.Embedding() if name.endswith("embedding.token"):
                model.set_submodule(name, HalfEmbedding(halve(module.weight)))
            case CacheFormat():
                module.dtype = torch.float16
    return kept
