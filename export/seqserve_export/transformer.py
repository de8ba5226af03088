"""The Transformer encoder-decoder: what we train, what checkpoints are mapped into, what we export.

One definition covers the published families through the switches of :class:`TransformerConfig`.
Two kinds of attention carry the model, each a module of its own:

* :class:`SelfAttention`: a sequence looks at itself. Queries, keys and values are projections of
  the same states.
* :class:`CrossAttention`: the decoder looks at what the encoder wrote. Queries come from the
  decoder, keys and values from the encoder states, which never change while decoding; so they are
  projected once per request by :meth:`CrossAttention.project_source`.

Shapes: B rows, S source length, T target length, P cache capacity, V vocabulary, H heads, D head
size, M model width.

Source: Vaswani et al. 2017, arXiv:1706.03762 (architecture); Xiong et al. 2020, arXiv:2002.04745
(norm before the block); Raffel et al. 2020, arXiv:1910.10683 (relative position bias); Shazeer
2020, arXiv:2002.05202 (gated feed-forward).
"""

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqserve_export.attention import ragged_attention, split_heads
from seqserve_export.positions import RelativePositionBias, sinusoidal_table

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of every layer, each [B, H, P, D]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """What the layers of a stack have in common; shared with encoder-only models."""

    model_size: int
    """M, the width of the residual stream."""
    num_heads: int
    head_size: int
    """D; a multiple of 8. ``num_heads * head_size`` need not equal ``model_size`` (T5)."""
    feed_forward_size: int
    norm: Literal["layer", "rms"] = "layer"
    norm_placement: Literal["pre", "post"] = "pre"
    norm_epsilon: float = 1e-5
    has_final_norm: bool = True
    """A norm after the last layer of each stack; the rule with ``pre``, rare with ``post``."""
    has_embedding_norm: bool = False
    """A norm on the embeddings (BART, BERT)."""
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "gelu"
    is_gated: bool = False
    """The feed-forward hidden layer is ``activation(gate(x)) * up(x)``."""
    positions: Literal["learned", "sinusoidal", "relative"] = "learned"
    num_position_buckets: int = 32
    """Buckets of the relative position bias."""
    max_position_distance: int = 128
    """Distances beyond share the last bucket of the relative position bias."""
    is_embedding_scaled: bool = False
    """Embeddings are multiplied by ``sqrt(model_size)``."""
    attention_scale: float | None = None
    """Factor on attention scores; None means ``1 / sqrt(head_size)``; T5 uses 1."""
    has_bias: bool = True
    """Linear layers inside the blocks have biases."""
    dropout: float = 0.0
    """Probability; only while training."""

    def __post_init__(self) -> None:
        """Checks what the fused attention operator requires."""
        if self.head_size % 8:
            raise ValueError(f"head_size must be a multiple of 8, but is {self.head_size}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(BlockConfig):
    """Every switch of the architecture; together with the weights it determines the function."""

    source_vocabulary_size: int
    target_vocabulary_size: int
    num_encoder_layers: int
    num_decoder_layers: int
    max_source_length: int
    """Longest source the positions are defined (or were trained) for, in tokens."""
    max_target_length: int
    has_shared_embedding: bool = False
    """Source and target use one embedding table."""
    has_tied_head: bool = True
    """The output projection is the transposed target embedding."""
    has_head_bias: bool = False
    head_scale: float = 1.0
    """Factor on the decoder output before a tied head (T5 v1.0: ``model_size ** -0.5``)."""

    def __post_init__(self) -> None:
        """Checks what the switches require of each other."""
        super().__post_init__()
        if self.has_shared_embedding and (
            self.source_vocabulary_size != self.target_vocabulary_size
        ):
            raise ValueError(
                "has_shared_embedding needs equal vocabularies, but they have "
                f"{self.source_vocabulary_size} and {self.target_vocabulary_size} entries"
            )


class SelfAttention(nn.Module):
    """A sequence looks at itself: queries, keys and values are projections of one sequence."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        inner_size = config.num_heads * config.head_size
        self.num_heads, self.scale = config.num_heads, config.attention_scale
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
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attends within each row.

        Args:
            states: [B, T, M].
            lengths: Valid positions of each row including the ones in ``states``, [B].
            is_causal: Whether a position is barred from later ones (decoder) or not (encoder).
            past: Keys and values of earlier positions, [B, H, P, D] each (decoder, cached).
            bias: Relative position bias, [B or 1, H, T, P or T].

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
        )
        return self.output(attended), (keys, values)


class CrossAttention(nn.Module):
    """The decoder looks at the source: its queries, the encoder's keys and values."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        inner_size = config.num_heads * config.head_size
        self.num_heads, self.scale = config.num_heads, config.attention_scale
        self.query = nn.Linear(config.model_size, inner_size, bias=config.has_bias)
        self.key = nn.Linear(config.model_size, inner_size, bias=config.has_bias)
        self.value = nn.Linear(config.model_size, inner_size, bias=config.has_bias)
        self.output = nn.Linear(inner_size, config.model_size, bias=config.has_bias)

    def project_source(self, encoder_states: Tensor) -> tuple[Tensor, Tensor]:
        """Projects encoder states [B, S, M] to keys and values [B, H, S, D], once per request."""
        keys, values = self.key(encoder_states), self.value(encoder_states)
        return split_heads(keys, self.num_heads), split_heads(values, self.num_heads)

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
        )
        return self.output(attended), (keys, values)


class FeedForward(nn.Module):
    """Two linear layers with an activation, applied at each position alone."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        size, inner_size = config.model_size, config.feed_forward_size
        self.activation = config.activation
        self.up = nn.Linear(size, inner_size, bias=config.has_bias)
        self.gate = nn.Linear(size, inner_size, bias=config.has_bias) if config.is_gated else None
        self.down = nn.Linear(inner_size, size, bias=config.has_bias)

    def forward(self, states: Tensor) -> Tensor:
        """Maps [B, T, M] to [B, T, M]."""
        if self.gate is None:
            hidden = _activate(self.up(states), self.activation)
        else:
            hidden = _activate(self.gate(states), self.activation) * self.up(states)
        projected: Tensor = self.down(hidden)
        return projected


def _activate(states: Tensor, activation: str) -> Tensor:
    match activation:
        case "relu":
            return functional.relu(states)
        case "gelu":
            return functional.gelu(states)
        case "gelu_tanh":
            return functional.gelu(states, approximate="tanh")
        case "silu":
            return functional.silu(states)
    raise ValueError(f"unknown activation {activation!r}")


def _make_norm(config: BlockConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.model_size, eps=config.norm_epsilon)
    return nn.LayerNorm(config.model_size, eps=config.norm_epsilon)


class Residual(nn.Module):
    """Adds a block's output to its input, with the norm before the block or after the sum."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.is_pre = config.norm_placement == "pre"
        self.norm = _make_norm(config)
        self.dropout = nn.Dropout(config.dropout)

    def enter(self, states: Tensor) -> Tensor:
        """What the block sees."""
        normed: Tensor = self.norm(states) if self.is_pre else states
        return normed

    def leave(self, states: Tensor, block_output: Tensor) -> Tensor:
        """What the next block gets."""
        total = states + self.dropout(block_output)
        left: Tensor = total if self.is_pre else self.norm(total)
        return left


class EncoderLayer(nn.Module):
    """Self-attention over the source, then a feed-forward block."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config)
        self.self_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, states: Tensor, lengths: Tensor, bias: Tensor | None) -> Tensor:
        """Maps source states [B, S, M] to [B, S, M]."""
        residual = self.self_attention_residual
        attended, _ = self.self_attention(
            residual.enter(states), lengths, is_causal=False, bias=bias
        )
        states = residual.leave(states, attended)
        residual = self.feed_forward_residual
        return residual.leave(states, self.feed_forward(residual.enter(states)))


class DecoderLayer(nn.Module):
    """Self-attention over the target so far, cross-attention to the source, feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config)
        self.self_attention_residual = Residual(config)
        self.cross_attention = CrossAttention(config)
        self.cross_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(
        self,
        states: Tensor,
        target_lengths: Tensor,
        source: tuple[Tensor, Tensor],
        source_lengths: Tensor,
        past: tuple[Tensor, Tensor] | None,
        bias: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Maps target states [B, T, M] to [B, T, M]; also returns both pairs of keys and values."""
        residual = self.self_attention_residual
        attended, present = self.self_attention(
            residual.enter(states), target_lengths, is_causal=True, past=past, bias=bias
        )
        states = residual.leave(states, attended)
        residual = self.cross_attention_residual
        attended, source = self.cross_attention(residual.enter(states), source, source_lengths)
        states = residual.leave(states, attended)
        residual = self.feed_forward_residual
        states = residual.leave(states, self.feed_forward(residual.enter(states)))
        return states, present, source


class Embedding(nn.Module):
    """Tokens to states: the token's vector, scaled if so configured, plus its position's."""

    def __init__(self, config: BlockConfig, vocabulary_size: int, max_length: int) -> None:
        super().__init__()
        self.scale = math.sqrt(config.model_size) if config.is_embedding_scaled else 1.0
        self.token = nn.Embedding(vocabulary_size, config.model_size)
        self.position: nn.Embedding | None = None
        if config.positions == "learned":
            self.position = nn.Embedding(max_length, config.model_size)
        elif config.positions == "sinusoidal":
            table = sinusoidal_table(max_length, config.model_size)
            self.position = nn.Embedding(max_length, config.model_size, _weight=table)
            self.position.weight.requires_grad_(False)
        self.norm = _make_norm(config) if config.has_embedding_norm else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Maps tokens [B, T] at positions [B or 1, T] to states [B, T, M]."""
        states = self.token(tokens) * self.scale
        if self.position is not None:
            states = states + self.position(positions)
        if self.norm is not None:
            states = self.norm(states)
        dropped: Tensor = self.dropout(states)
        return dropped


class Encoder(nn.Module):
    """The stack that reads the source."""

    def __init__(self, config: BlockConfig, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(num_layers))
        self.position_bias = RelativePositionBias.of(config, is_bidirectional=True)
        self.norm = _make_norm(config) if config.has_final_norm else None

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Maps embedded sources [B, S, M] with their lengths [B] to encoder states [B, S, M]."""
        bias = None
        if self.position_bias is not None:
            positions = torch.arange(states.shape[1], device=states.device)[None]
            bias = self.position_bias(positions, states.shape[1])
        for layer in self.layers:
            states = layer(states, lengths, bias)
        return states if self.norm is None else self.norm(states)


class Decoder(nn.Module):
    """The stack that writes the target."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_decoder_layers))
        self.position_bias = RelativePositionBias.of(config, is_bidirectional=False)
        self.norm = _make_norm(config) if config.has_final_norm else None

    def project_source(self, encoder_states: Tensor) -> Cache:
        """The cross-attention keys and values of every layer, from encoder states [B, S, M]."""
        caches: Cache = []
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            caches.append(layer.cross_attention.project_source(encoder_states))
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
        """Runs the stack over a whole target, or over its newest position given the past.

        Args:
            states: Embedded target tokens [B, T, M].
            positions: Their positions, [B or 1, T].
            target_lengths: Valid target positions of each row, the new ones included, [B], int32.
            source: Projected encoder states of every layer.
            source_lengths: Valid source positions of each row, [B], int32.
            past: Keys and values of earlier target positions, or None for a whole target.

        Returns:
            States [B, T, M], then the self-attention and the cross-attention keys and values.
        """
        bias = None
        if self.position_bias is not None:
            num_keys = states.shape[1] if past is None else past[0][0].shape[2]
            bias = self.position_bias(positions, num_keys)
        presents: Cache = []
        sources: Cache = []
        for index, layer in enumerate(self.layers):
            layer_past = None if past is None else past[index]
            states, present, layer_source = layer(
                states, target_lengths, source[index], source_lengths, layer_past, bias
            )
            presents.append(present)
            sources.append(layer_source)
        return (states if self.norm is None else self.norm(states)), presents, sources


class Transformer(nn.Module):
    """The encoder-decoder model: embeddings, encoder, decoder, and the head over the vocabulary."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.source_embedding = Embedding(
            config, config.source_vocabulary_size, config.max_source_length
        )
        self.target_embedding = Embedding(
            config, config.target_vocabulary_size, config.max_target_length
        )
        if config.has_shared_embedding:
            self.target_embedding.token = self.source_embedding.token
        self.encoder = Encoder(config, config.num_encoder_layers)
        self.decoder = Decoder(config)
        self.head = nn.Linear(
            config.model_size, config.target_vocabulary_size, bias=config.has_head_bias
        )
        if config.has_tied_head:
            self.head.weight = self.target_embedding.token.weight

    def encode(self, source_tokens: Tensor, source_lengths: Tensor) -> Tensor:
        """Encodes sources: tokens [B, S] and lengths [B] to encoder states [B, S, M]."""
        positions = torch.arange(source_tokens.shape[1], device=source_tokens.device)[None]
        states: Tensor = self.encoder(
            self.source_embedding(source_tokens, positions), source_lengths
        )
        return states

    def forward(
        self,
        source_tokens: Tensor,
        source_lengths: Tensor,
        target_tokens: Tensor,
        target_lengths: Tensor,
    ) -> Tensor:
        """Scores whole targets at once (teacher forcing), as in training.

        Args:
            source_tokens: [B, S], padded on the right.
            source_lengths: [B], int32.
            target_tokens: [B, T], padded on the right, starting with the decoder start token.
            target_lengths: [B], int32.

        Returns:
            Logits of the token that follows each position, [B, T, V].
        """
        source = self.decoder.project_source(self.encode(source_tokens, source_lengths))
        num_targets = target_tokens.shape[1]
        positions = torch.arange(num_targets, device=target_tokens.device)[None]
        # Padding is on the right and attention is causal, so no valid position sees padding; the
        # full length keeps "the last query stands at the end" true for every row.
        full_lengths = torch.full_like(target_lengths, num_targets)
        states, _, _ = self.decoder(
            self.target_embedding(target_tokens, positions),
            positions,
            full_lengths,
            source,
            source_lengths,
        )
        return self.project(states)

    def decode(
        self,
        tokens: Tensor,
        past_lengths: Tensor,
        source: Cache,
        source_lengths: Tensor,
        past: Cache,
    ) -> tuple[Tensor, Cache, Cache]:
        """Decodes one step: one new token per row, each at its own position.

        Args:
            tokens: The newest token of each row, [B].
            past_lengths: Target positions already in ``past``, [B], int32; also the position of
                the new token.
            source: Projected encoder states of every layer, [B, H, S, D] each.
            source_lengths: [B], int32.
            past: Self-attention keys and values of every layer, [B, H, P, D] each.

        Returns:
            Logits [B, V], then the self-attention and the cross-attention keys and values.
        """
        positions = past_lengths[:, None]
        states, presents, sources = self.decoder(
            self.target_embedding(tokens[:, None], positions),
            positions,
            past_lengths + 1,
            source,
            source_lengths,
            past,
        )
        return self.project(states[:, 0]), presents, sources

    def project(self, states: Tensor) -> Tensor:
        """Projects decoder states [..., M] to logits [..., V]."""
        logits: Tensor = self.head(states * self.config.head_scale)
        return logits
