"""Self- and cross-attention with other scores than dot products.

Shapes: B rows, S source length, T target length, P cache capacity, H heads, D head size, M model
width.
"""

import torch
from torch import Tensor, nn

from seqserve_export.attention import ragged_attention, split_heads
from seqserve_export.multi_head_attention import CrossAttention, SelfAttention
from seqserve_export.transformer_config import BlockConfig
from seqserve_export.variants.score import LocationScore


class ScoredSelfAttention(SelfAttention):
    """A sequence looks at itself, by the scores of a module."""

    def __init__(self, config: BlockConfig, score: nn.Module) -> None:
        super().__init__(config)
        self.score = score

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
        """Attends within each row, as :meth:`SelfAttention.forward` does, without positions."""
        assert bias is None
        assert rotary is None
        queries = split_heads(self.query(states), self.num_heads)
        new_keys = self.key(states)
        scores = self.score(queries, split_heads(new_keys, self.num_heads))  # [B, H, T, T]
        if past is not None:
            # The new key is not in the cache yet.
            places = torch.arange(past[0].shape[2], device=states.device)
            is_new = places == (lengths - 1)[:, None, None, None]
            scores = torch.where(is_new, scores, self.score(queries, past[0]))  # [B, H, 1, P]
        attended, keys, values = ragged_attention(
            torch.zeros_like(new_keys),
            new_keys,
            self.value(states),
            lengths,
            num_heads=self.num_heads,
            is_causal=is_causal,
            past=past,
            bias=scores,
        )
        return self.output(attended), (keys, values)


class ScoredCrossAttention(CrossAttention):
    """The decoder looks at the source, by the scores of a module."""

    def __init__(self, config: BlockConfig, score: nn.Module) -> None:
        super().__init__(config)
        self.score = score
        if isinstance(score, LocationScore):
            # Keys are not looked at; the cache holds the states in their place.
            self.set_submodule("key", nn.Identity())

    def forward(
        self, states: Tensor, source: tuple[Tensor, Tensor], source_lengths: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attends from decoder states [B, T, M] to the valid source positions of each row."""
        queries = self.query(states)
        no_new = queries[:, :0]
        attended, keys, values = ragged_attention(
            torch.zeros_like(queries),
            no_new,
            no_new,
            source_lengths,
            num_heads=self.num_heads,
            is_causal=False,
            past=source,
            bias=self.score(split_heads(queries, self.num_heads), source[0]),
        )
        return self.output(attended), (keys, values)


def use_states_as_queries(attention: SelfAttention | CrossAttention) -> None:
    """Leaves one matrix between query and key, ``x W y``: the general score.

    Source: Luong et al. 2015, arXiv:1508.04025, eq. 8, for each head.
    """
    attention.set_submodule("query", nn.Identity())
    attention.scale = 1.0
