"""The encoder-only model: token embeddings and a stack of encoder layers (BERT and its kin).

It is made of the parts of :mod:`seqserve_export.transformer`; only the embedding differs, by a
vector for the type of each token.

Shapes: B rows, S source length, M model width.

Source: Devlin et al. 2019, arXiv:1810.04805; ``BertModel`` of ``transformers``.
"""

import dataclasses

import torch
from torch import Tensor, nn

from seqserve_export.transformer import Embedding, Encoder
from seqserve_export.transformer_config import BlockConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(BlockConfig):
    """Every switch of the architecture; together with the weights it determines the function."""

    vocabulary_size: int
    num_layers: int
    max_length: int
    """Longest source the positions are defined for, in tokens, special tokens included."""
    num_token_types: int = 0
    """Types of tokens, such as "first text" and "second text" of a pair; 0 means untyped."""

    def __post_init__(self) -> None:
        """Checks the sizes."""
        super().__post_init__()
        if self.num_token_types < 0:
            raise ValueError(f"num_token_types must be at least 0, but is {self.num_token_types}")


class TypedEmbedding(Embedding):
    """Adds a vector for the type of each token to its embedding."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, config.vocabulary_size, config.max_length)
        self.token_type: nn.Embedding | None = None
        if config.num_token_types:
            self.token_type = nn.Embedding(config.num_token_types, config.model_size)

    def forward(
        self, tokens: Tensor, positions: Tensor, token_types: Tensor | None = None
    ) -> Tensor:
        """Maps tokens [B, S] at positions [B or 1, S] to states [B, S, M].

        Args:
            tokens: [B, S].
            positions: [B or 1, S].
            token_types: [B or 1, S]; None means type 0 everywhere, a single text.
        """
        states = self.token(tokens) * self.scale
        if self.token_type is not None:
            if token_types is None:
                states = states + self.token_type.weight[0]
            else:
                states = states + self.token_type(token_types)
        if self.position is not None:
            states = states + self.position(positions)
        if self.norm is not None:
            states = self.norm(states)
        dropped: Tensor = self.dropout(states)
        return dropped


class EncoderModel(nn.Module):
    """Embedding and encoder stack; heads and pooling are modules of their own."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = TypedEmbedding(config)
        self.encoder = Encoder(config, config.num_layers)

    def forward(self, tokens: Tensor, lengths: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Encodes sources.

        Args:
            tokens: [B, S], padded on the right.
            lengths: [B], int32.
            token_types: [B or 1, S]; None means type 0 everywhere.

        Returns:
            States [B, S, M]; what lies beyond a row's length has no meaning.
        """
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        states: Tensor = self.encoder(self.embedding(tokens, positions, token_types), lengths)
        return states
