"""One stack that attends over the concatenation of source and target, without cross-attention.

Source tokens see the source; target tokens see the source and the target before them, with one
softmax over both. Both go through the same layers. What the source becomes does not depend on the
target: so its keys and values, of every layer, are computed once per request, and are what is kept
where others keep those of cross-attention.

A row's target begins behind the longest source there may be, whatever the batch holds; what lies
between is hidden. So no place, and no bit, depends on other rows.

Shapes: B rows, S source length, T target length, P cache capacity, H heads, D head size, L layers,
M model width, R room for a source.

Source: Liu et al. 2018, arXiv:1801.10198, section 4.2.3 (one stack over source and target); Raffel
et al. 2020, arXiv:1910.10683, section 3.2.1 (prefix language model).
"""

import torch
from torch import Tensor, nn

from seqserve_export.attention import ragged_attention, split_heads, write
from seqserve_export.layers import EncoderLayer, make_norm
from seqserve_export.multi_head_attention import SelfAttention
from seqserve_export.transformer import Cache
from seqserve_export.transformer_config import TransformerConfig

_HIDDEN_SCORE = -1e9


def make_layers(config: TransformerConfig) -> nn.ModuleList:
    """The layers that source and target share."""
    return nn.ModuleList(EncoderLayer(config) for _ in range(config.num_decoder_layers))


class SourcePass(nn.Module):
    """The source on its way through the layers, seeing itself."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Maps embedded sources [B, S, M] to what enters each layer, [B, S, L*M]."""
        entering = [states]
        for layer in self.layers[:-1]:
            entering.append(layer(entering[-1], lengths, None))
        return torch.cat(entering, dim=-1)


class ConcatenatedDecoder(nn.Module):
    """The target on its way through the layers, seeing source and target."""

    def __init__(self, config: TransformerConfig, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers
        self.room = config.max_source_length
        self.norm = make_norm(config) if config.has_final_norm else None

    def project_source(self, encoder_states: Tensor) -> Cache:
        """Keys and values of the source in every layer, from what enters them [B, S, L*M]."""
        caches: Cache = []
        for layer, states in zip(
            self.layers, encoder_states.chunk(len(self.layers), dim=-1), strict=True
        ):
            assert isinstance(layer, EncoderLayer)
            attention, entered = layer.self_attention, layer.self_attention_residual.enter(states)
            caches.append(
                (
                    split_heads(attention.key(entered), attention.num_heads),
                    split_heads(attention.value(entered), attention.num_heads),
                )
            )
        return caches

    def forward(
        self,
        states: Tensor,
        positions: Tensor,
        target_lengths: Tensor,
        source: Cache,
        source_lengths: Tensor,
        past: Cache | None = None,
    ) -> tuple[Tensor, Cache, Cache]:
        """Runs the stack as :meth:`seqserve_export.transformer.Decoder.forward` does."""
        presents: Cache = []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, EncoderLayer)
            residual = layer.self_attention_residual
            attended, present = self._attend(
                layer.self_attention,
                residual.enter(states),
                target_lengths,
                source[index],
                source_lengths,
                None if past is None else past[index],
            )
            presents.append(present)
            states = residual.leave(states, attended)
            residual = layer.feed_forward_residual
            states = residual.leave(states, layer.feed_forward(residual.enter(states)))
        return (states if self.norm is None else self.norm(states)), presents, source

    def _attend(
        self,
        attention: SelfAttention,
        states: Tensor,
        target_lengths: Tensor,
        source: tuple[Tensor, Tensor],
        source_lengths: Tensor,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attends from target states [B, T, M]; returns keys and values of the target, too."""
        queries = attention.query(states)
        keys = split_heads(attention.key(states), attention.num_heads)
        values = split_heads(attention.value(states), attention.num_heads)
        if past is not None:
            keys = write(past[0], keys, target_lengths)
            values = write(past[1], values, target_lengths)
        no_new = queries[:, :0]
        attended, _, _ = ragged_attention(
            queries,
            no_new,
            no_new,
            self.room + target_lengths,
            num_heads=attention.num_heads,
            is_causal=False,
            scale=attention.scale,
            past=(self._join(source[0], keys), self._join(source[1], values)),
            bias=self._hide(queries.shape[1], keys.shape[2], source_lengths, past is not None),
        )
        return attention.output(attended), (keys, values)

    def _join(self, source: Tensor, target: Tensor) -> Tensor:
        """The source [B, H, S, D], in its room, before the target [B, H, P, D]: [B, H, R+P, D]."""
        places = torch.arange(self.room, device=source.device).clamp(max=source.shape[2] - 1)
        return torch.cat([source.index_select(2, places), target], dim=2)

    def _hide(
        self, num_queries: int, num_keys: int, source_lengths: Tensor, is_cached: bool
    ) -> Tensor:
        """Scores that hide the rest of the room, and later targets: [B, 1, T, R+P]."""
        device = source_lengths.device
        is_beyond = torch.arange(self.room, device=device) >= source_lengths[:, None]  # [B, R]
        places = torch.arange(num_keys, device=device)
        # A cached query is the last one: its length hides what is behind it.
        is_later = places[None] < 0 if is_cached else places > places[:, None]  # [T, P]
        num_rows = source_lengths.shape[0]
        is_hidden = torch.cat(
            [
                is_beyond[:, None, None].expand(-1, -1, num_queries, -1),
                is_later[None, None].expand(num_rows, -1, -1, -1),
            ],
            dim=3,
        )
        return is_hidden.float() * _HIDDEN_SCORE
