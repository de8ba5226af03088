"""The encoder-only model: typed token embeddings and a stack of encoder layers (BERT and its kin).

It is made of the parts of :mod:`seqserve_export.layers`; :class:`EncoderConfig` holds the switches
in which the published families differ.

Shapes: B rows, S source length, M model width, E embedding width.

Source: Devlin et al. 2019, arXiv:1810.04805; ``BertModel`` of ``transformers``, and the models of
the other families (``families``).
"""

import torch
from torch import Tensor, nn

from seqserve_export.disentangled import DisentangledLayer, DistanceEmbedding, EmbeddingConvolution
from seqserve_export.encoder_config import AttentionScope, EncoderConfig
from seqserve_export.layers import EncoderLayer, make_norm
from seqserve_export.positions import RelativePositionBias, RotaryPositions, window_bias


class TypedEmbedding(nn.Module):
    """Tokens to states: the sum of the vectors of token, type and position, then a norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.embedding_size or config.model_size
        self.uncounted_token = config.uncounted_token
        self.token = nn.Embedding(config.vocabulary_size, size)
        self.token_type: nn.Embedding | None = None
        if config.num_token_types:
            self.token_type = nn.Embedding(config.num_token_types, size)
        self.position: nn.Embedding | None = None
        if config.positions == "learned":
            self.position = nn.Embedding(config.num_positions, size)
        self.norm: nn.Module | None = None
        if config.has_embedding_norm:
            self.norm = nn.LayerNorm(size, eps=config.norm_epsilon, bias=config.has_norm_bias)
        self.projection: nn.Linear | None = None
        if config.embedding_size is not None:
            self.projection = nn.Linear(size, config.model_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Maps tokens [B, S] to states [B, S, M].

        Args:
            tokens: [B, S].
            token_types: [B or 1, S]; None means type 0 everywhere, a single text.
        """
        states = self.token(tokens)  # [B, S, E]
        if self.token_type is not None:
            if token_types is None:
                states = states + self.token_type.weight[0]
            else:
                states = states + self.token_type(token_types)
        if self.position is not None:
            states = states + self.position(self._positions(tokens))
        if self.norm is not None:
            states = self.norm(states)
        if self.projection is not None:
            states = self.projection(states)
        dropped: Tensor = self.dropout(states)
        return dropped

    def _positions(self, tokens: Tensor) -> Tensor:
        """Rows of the position table, [B or 1, S]."""
        if self.uncounted_token is None:
            return torch.arange(tokens.shape[1], device=tokens.device)[None]
        is_counted = (tokens != self.uncounted_token).long()
        return is_counted.cumsum(dim=1) * is_counted + self.uncounted_token


class EncoderStack(nn.Module):
    """The layers, and what they share: biases, distances, rotary angles."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        make_layer = EncoderLayer if config.disentangled is None else DisentangledLayer
        self.layers = nn.ModuleList(make_layer(config) for _ in range(config.num_layers))
        self.order = config.layer_order or tuple(range(config.num_layers))
        self.scopes = config.scopes
        if not config.has_first_norm:
            first = self.layers[0]
            assert isinstance(first, EncoderLayer)
            first.self_attention_residual.norm = nn.Identity()
        self.position_bias: RelativePositionBias | None = None
        if config.has_position_bias:
            self.position_bias = RelativePositionBias(
                config.num_heads,
                config.num_position_buckets,
                config.max_position_distance,
                is_bidirectional=True,
            )
        self.rotary = nn.ModuleDict()
        for scope in config.scopes:
            if scope.rotary_base is not None and _to_key(scope.rotary_base) not in self.rotary:
                positions = RotaryPositions(scope.rotary_base, config.head_size, config.max_length)
                self.rotary[_to_key(scope.rotary_base)] = positions
        self.distances: DistanceEmbedding | None = None
        if config.disentangled is not None:
            self.distances = DistanceEmbedding(config, config.disentangled)
        self.convolution: EmbeddingConvolution | None = None
        if config.convolution is not None:
            self.convolution = EmbeddingConvolution(config, config.convolution)
        self.norm = make_norm(config) if config.has_final_norm else None

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Maps embedded sources [B, S, M] with their lengths [B] to encoder states [B, S, M]."""
        embedded = states
        shared = self._shared_bias(states)
        scoped = {scope: self._scope(scope, states) for scope in dict.fromkeys(self.scopes)}
        for depth, index in enumerate(self.order):
            layer = self.layers[index]
            if self.scopes:
                states = layer(states, lengths, *scoped[self.scopes[index]])
            else:
                states = layer(states, lengths, shared)
            if depth == 0 and self.convolution is not None:
                states = self.convolution(embedded, states, lengths)
        return states if self.norm is None else self.norm(states)

    def _shared_bias(self, states: Tensor) -> Tensor | None:
        """What all layers add to their scores, or make it of: distances or a bias."""
        num_positions = states.shape[1]
        if self.distances is not None:
            distances: Tensor = self.distances()
            return distances
        if self.position_bias is not None:
            positions = torch.arange(num_positions, device=states.device)[None]
            biases: list[Tensor] = self.position_bias(positions, num_positions, 1)
            return biases[0]
        return None

    def _scope(
        self, scope: AttentionScope, states: Tensor
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
        """Bias and rotary angles of the layers of a scope."""
        bias = rotary = None
        if scope.max_distance is not None:
            bias = window_bias(states.shape[1], scope.max_distance, states.device)
        if scope.rotary_base is not None:
            rotary = self.rotary[_to_key(scope.rotary_base)]()
        return bias, rotary


def _to_key(base: float) -> str:
    """Module names have no points."""
    return f"base_{base!r}".replace(".", "_")


class EncoderModel(nn.Module):
    """Embedding and encoder stack; heads and pooling are modules of their own."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = TypedEmbedding(config)
        self.encoder = EncoderStack(config)

    def forward(self, tokens: Tensor, lengths: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Encodes sources.

        Args:
            tokens: [B, S], padded on the right.
            lengths: [B], int32.
            token_types: [B or 1, S]; None means type 0 everywhere.

        Returns:
            States [B, S, M]; what lies beyond a row's length has no meaning.
        """
        states: Tensor = self.encoder(self.embedding(tokens, token_types), lengths)
        return states
