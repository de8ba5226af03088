"""The two kinds of attention that carry the model, each a module of its own.

* :class:`SelfAttention`: a sequence looks at itself. Queries, keys and values are projections of
  the same states.
* :class:`CrossAttention`: the decoder looks at what the encoder wrote. Queries come from the
  decoder, keys and values from the encoder states, which never change while decoding; so they are
  projected once per request by :meth:`CrossAttention.project_source`.

Shapes: B rows, S source length, T target length, P cache capacity, H heads, D head size, M model
width.

Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.
"""

import torch
from torch import Tensor, nn

from seqserve_export.attention import ragged_attention, split_heads, to_bytes
from seqserve_export.transformer_config import BlockConfig


class CacheFormat(nn.Module):
    """How an attention computes, and how that of a decoder keeps keys and values."""

    key_scales: Tensor | None
    value_scales: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.dtype = torch.float32
        """Of the attention, and of keys and values unless they are bytes."""
        self.register_buffer("key_scales", None)
        self.register_buffer("value_scales", None)

    @property
    def scales(self) -> tuple[Tensor, Tensor] | None:
        """Steps of keys and of values kept as signed bytes, [H, D] each; None if they are not."""
        if self.key_scales is None or self.value_scales is None:
            return None
        return self.key_scales, self.value_scales


class SelfAttention(nn.Module):
    """A sequence looks at itself: queries, keys and values are projections of one sequence."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        inner_size = config.num_heads * config.head_size
        self.num_heads, self.scale = config.num_heads, config.attention_scale
        self.cache = CacheFormat()
        self.query = nn.Linear(config.model_size, inner_size, bias=config.has_bias)
        self.key = nn.Linear(config.model_size, inner_size, bias=config.has_bias)
        self.value = nn.Linear(config.model_size, inner_size, bias=config.has_bias)
        self.output = nn.Linear(inner_size, config.model_size, bias=config.has_bias)

    def forward(
        self,
        states: Tensor,
        lengths: Tensor,
        *,
        is_causal: bool,
        past: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attends within each row.

        Args:
            states: [B, T, M].
            lengths: Valid positions of each row including the ones in ``states``, [B].
            is_causal: Whether a position is barred from later ones (decoder) or not (encoder).
            past: Keys and values of earlier positions, [B, H, P, D] each (decoder, cached).
            bias: Relative position bias, [B or 1, H or 1, T, P or T].
            rotary: Cosines and sines of rotary positions, [P, D/2] each.

        Returns:
            The new states [B, T, M], and keys and values including the new positions.
        """
        attended, keys, values = ragged_attention(
            self.query(states),
            self.key(states),
            self.value(states),
            lengths,
            num_heads=self.num_heads,
            is_causal=is_causal,
            scale=self.scale,
            past=past,
            bias=bias,
            rotary=rotary,
            dtype=self.cache.dtype,
            cache_scales=self.cache.scales,
        )
        return self.output(attended), (keys, values)


class CrossAttention(nn.Module):
    """The decoder looks at the source: its queries, the encoder's keys and values."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        inner_size = config.num_heads * config.head_size
        self.num_heads, self.scale = config.num_heads, config.attention_scale
        self.cache = CacheFormat()
        self.query = nn.Linear(config.model_size, inner_size, bias=config.has_bias)
        self.key = nn.Linear(config.model_size, inner_size, bias=config.has_bias)
        self.value = nn.Linear(config.model_size, inner_size, bias=config.has_bias)
        self.output = nn.Linear(inner_size, config.model_size, bias=config.has_bias)

    def project_source(self, encoder_states: Tensor) -> tuple[Tensor, Tensor]:
        """Projects encoder states [B, S, M] to keys and values [B, H, S, D], once per request."""
        projections = (self.key(encoder_states), self.value(encoder_states))
        keys, values = (
            split_heads(states.to(self.cache.dtype), self.num_heads) for states in projections
        )
        if self.cache.scales is None:
            return keys, values
        return to_bytes(keys, self.cache.scales[0]), to_bytes(values, self.cache.scales[1])

    def forward(
        self, states: Tensor, source: tuple[Tensor, Tensor], source_lengths: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attends from decoder states [B, T, M] to the valid source positions of each row.

        Returns:
            The new states [B, T, M], and ``source`` as the operator hands it on.
        """
        queries = self.query(states)
        no_new = queries[:, :0]
        attended, keys, values = ragged_attention(
            queries,
            no_new,
            no_new,
            source_lengths,
            num_heads=self.num_heads,
            is_causal=False,
            scale=self.scale,
            past=source,
            dtype=self.cache.dtype,
            cache_scales=self.cache.scales,
        )
        return self.output(attended), (keys, values)
