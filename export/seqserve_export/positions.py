"""Positions: the sinusoidal table, the relative position bias of T5, rotary positions."""

import math
from typing import TYPE_CHECKING, Literal, Optional

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from seqserve_export.transformer_config import BlockConfig

_HIDDEN_SCORE = -1e9


def sinusoidal_table(
    num_positions: int,
    size: int,
    *,
    rates: Literal["vaswani", "tensor2tensor"] = "vaswani",
    first_position: int = 0,
) -> Tensor:
    """Fixed position vectors [num_positions, size]: all sines first, then all cosines.

    Sinusoid ``i`` has the rate ``10000 ** (-i / n)``, where n is half the size (``vaswani``), or
    one less (``tensor2tensor``, and after it fairseq).

    Source: Vaswani et al. 2017, section 3.5, in the halves layout of Marian and of
    ``transformers`` (``MarianSinusoidalPositionalEmbedding``,
    ``M2M100SinusoidalPositionalEmbedding``).
    """
    half = size - size // 2
    steps = torch.arange(half, dtype=torch.float64, device="cpu")
    num_steps = size / 2 if rates == "vaswani" else size // 2 - 1
    places = torch.arange(num_positions, dtype=torch.float64, device="cpu") + first_position
    angles = places[:, None] * torch.exp(steps * (-math.log(10000.0) / num_steps))  # [P, half]
    return torch.cat([angles.sin(), angles.cos()[:, : size // 2]], dim=1).float()


def position_buckets(
    distances: Tensor, *, is_bidirectional: bool, num_buckets: int, max_distance: int
) -> Tensor:
    """Buckets of signed distances (key position minus query position).

    Half of the buckets are exact small distances, the other half grow logarithmically up to
    ``max_distance``; with ``is_bidirectional`` the sign takes one more halving, else keys after
    the query share the bucket of distance 0.

    Source: Raffel et al. 2020, arXiv:1910.10683, section 2.1; ``T5Attention`` of ``transformers``.
    """
    offsets = torch.zeros_like(distances)
    if is_bidirectional:
        num_buckets //= 2
        offsets = (distances > 0).long() * num_buckets
        distances = distances.abs()
    else:
        distances = (-distances).clamp(min=0)
    num_exact = num_buckets // 2
    growth = torch.log(distances.clamp(min=1).float() / num_exact) / math.log(
        max_distance / num_exact
    )
    far = (num_exact + (growth * (num_buckets - num_exact)).long()).clamp(max=num_buckets - 1)
    return offsets + torch.where(distances < num_exact, distances, far)


class RelativePositionBias(nn.Module):
    """A learned score per head for the distance between query and key.

    All layers of a stack share it (T5), or each has its own (UMT5).
    """

    buckets: Tensor

    def __init__(
        self,
        num_heads: int,
        num_buckets: int,
        max_distance: int,
        *,
        is_bidirectional: bool,
        num_layers: int | None = None,
    ) -> None:
        """Makes a bias of zeros.

        Args:
            num_heads: H.
            num_buckets: Learned scores of each head.
            max_distance: Distances beyond share the last bucket.
            is_bidirectional: Whether keys after the query are told apart.
            num_layers: L, where each layer has its own; None where they share.
        """
        super().__init__()
        self.max_distance = max_distance
        shape = (num_buckets, num_heads)
        self.weight = nn.Parameter(
            torch.zeros(shape if num_layers is None else (num_layers, *shape))
        )
        # Buckets are constant from max_distance on, so a table over the clamped distances holds
        # them all, and the graph needs one lookup instead of logarithms.
        distances = torch.arange(-max_distance, max_distance + 1, device="cpu")
        buckets = position_buckets(
            distances,
            is_bidirectional=is_bidirectional,
            num_buckets=num_buckets,
            max_distance=max_distance,
        )
        self.register_buffer("buckets", buckets, persistent=False)

    @classmethod
    def of(
        cls, config: "BlockConfig", num_layers: int, *, is_bidirectional: bool
    ) -> Optional["RelativePositionBias"]:
        """The bias a configuration asks for, or None."""
        if config.positions != "relative":
            return None
        return cls(
            config.num_heads,
            config.num_position_buckets,
            config.max_position_distance,
            is_bidirectional=is_bidirectional,
            num_layers=num_layers if config.has_position_bias_per_layer else None,
        )

    def forward(self, query_positions: Tensor, num_keys: int, num_layers: int) -> list[Tensor]:
        """For each layer the bias of queries at [B or 1, T] to keys 0..P-1: [B or 1, H, T, P]."""
        key_positions = torch.arange(num_keys, device=query_positions.device)
        distances = key_positions - query_positions[..., None]  # [B, T, P]
        index = distances.clamp(-self.max_distance, self.max_distance) + self.max_distance
        if self.weight.ndim == 2:
            return [self._look_up(self.weight, index)] * num_layers
        return [self._look_up(weight, index) for weight in self.weight]

    def _look_up(self, weight: Tensor, index: Tensor) -> Tensor:
        by_distance = weight[self.buckets]  # [2 * max_distance + 1, H]
        return by_distance[index].permute(0, 3, 1, 2)


class RotaryPositions(nn.Module):
    """The angles by which rotary positions turn queries and keys.

    Source: Su et al. 2021, arXiv:2104.09864, section 3.2.2.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, base: float, head_size: int, max_length: int) -> None:
        super().__init__()
        rates = 1.0 / base ** (torch.arange(0, head_size, 2).float() / head_size)
        angles = torch.arange(max_length).float()[:, None] * rates  # [max_length, D/2]
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines of all positions, [max_length, D/2] each."""
        return self.cosines, self.sines


def window_bias(length: int, max_distance: int, device: torch.device) -> Tensor:
    """Hides from each query the keys further away than ``max_distance``: [1, 1, S, S].

    Hidden scores are low rather than infinite: a query in the padding may see no valid key, and
    must not become NaN for it.
    """
    positions = torch.arange(length, device=device)
    is_hidden = (positions[:, None] - positions).abs() > max_distance
    return is_hidden.float()[None, None] * _HIDDEN_SCORE
