"""The Transformer encoder-decoder: what we train, what checkpoints are mapped into, what we export.

One definition covers the published families through the switches of :class:`TransformerConfig`;
``multi_head_attention`` holds self-attention and cross-attention, ``layers`` what surrounds them.

Shapes: B rows, S source length, T target length, P cache capacity, V vocabulary, H heads, D head
size, M model width.

Source: Vaswani et al. 2017, arXiv:1706.03762.
"""

import math

import torch
from torch import Tensor, nn

from seqserve.attention_kind import AttentionKind
from seqserve_export.layers import DecoderLayer, EncoderLayer, make_norm
from seqserve_export.positions import RelativePositionBias, sinusoidal_table
from seqserve_export.transformer_config import BlockConfig, TransformerConfig

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of every layer, each [B, H, P, D]."""
KindLayers = dict[AttentionKind, int]
"""How many layers there are of each kind of attention, in the order of the tensors."""


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
            table = sinusoidal_table(
                max_length,
                config.model_size,
                rates=config.sinusoidal_rates,
                first_position=config.sinusoidal_offset,
            )
            self.position = nn.Embedding(max_length, config.model_size, _weight=table)
            self.position.weight.requires_grad_(False)
        self.norm = make_norm(config) if config.has_embedding_norm else None
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
        self.position_bias = RelativePositionBias.of(config, num_layers, is_bidirectional=True)
        self.norm = make_norm(config) if config.has_final_norm else None

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Maps embedded sources [B, S, M] with their lengths [B] to encoder states [B, S, M]."""
        biases = [None] * len(self.layers)
        if self.position_bias is not None:
            positions = torch.arange(states.shape[1], device=states.device)[None]
            biases = self.position_bias(positions, states.shape[1], len(self.layers))
        for layer, bias in zip(self.layers, biases, strict=True):
            states = layer(states, lengths, bias)
        return states if self.norm is None else self.norm(states)


class Decoder(nn.Module):
    """The stack that writes the target."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_decoder_layers))
        self.position_bias = RelativePositionBias.of(
            config, config.num_decoder_layers, is_bidirectional=False
        )
        self.norm = make_norm(config) if config.has_final_norm else None

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
        biases = [None] * len(self.layers)
        if self.position_bias is not None:
            num_keys = states.shape[1] if past is None else past[0][0].shape[2]
            biases = self.position_bias(positions, num_keys, len(self.layers))
        presents: Cache = []
        sources: Cache = []
        for index, layer in enumerate(self.layers):
            layer_past = None if past is None else past[index]
            states, present, layer_source = layer(
                states, target_lengths, source[index], source_lengths, layer_past, biases[index]
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

    @property
    def family(self) -> str:
        """What the manifest calls a checkpoint of our own."""
        return "transformer"

    @property
    def attention_layers(self) -> KindLayers:
        """How many layers there are of each kind of attention."""
        return {
            AttentionKind.ENCODER_SELF: self.config.num_encoder_layers,
            AttentionKind.DECODER_SELF: self.config.num_decoder_layers,
            AttentionKind.CROSS: self.config.num_decoder_layers,
        }

    def sort_attention(self, record: list[Tensor], source_length: int) -> list[Tensor]:
        """Puts the weights of all calls of attention into the order of the kinds.

        Args:
            record: [B, H, T, P] each, in the order of the calls in :meth:`forward`.
            source_length: S.
        """
        num_encoder_layers = self.config.num_encoder_layers
        of_decoder = record[num_encoder_layers:]  # each layer looks at itself, then at the source
        return [*record[:num_encoder_layers], *of_decoder[::2], *of_decoder[1::2]]

    @property
    def cache_dtype(self) -> torch.dtype:
        """Number format of keys and values."""
        layer = self.decoder.layers[0]
        assert isinstance(layer, DecoderLayer)
        cache = layer.self_attention.cache
        return cache.dtype if cache.scales is None else torch.int8

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
        return self.score(source, source_lengths, target_tokens, target_lengths)

    def score(
        self,
        source: Cache,
        source_lengths: Tensor,
        target_tokens: Tensor,
        target_lengths: Tensor,
    ) -> Tensor:
        """Scores whole targets of sources that are projected already, see :meth:`forward`."""
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
