"""The switches of encoder-only models; together with the weights they determine the function."""

import dataclasses

from seqserve_export.transformer_config import Activation, BlockConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionScope:
    """What the self-attention of one layer sees, and how it tells positions apart."""

    max_distance: int | None = None
    """Positions to each side of the query that it sees; None means all."""
    rotary_base: float | None = None
    """Wavelength base of rotary positions; None means no rotation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DisentangledConfig:
    """Disentangled attention: scores between contents and distances (DeBERTa)."""

    num_buckets: int | None
    """Buckets of distances to one side, half of them logarithmic; None means one per distance."""
    max_distance: int
    """Distances beyond share the last bucket."""
    has_content_to_position: bool
    has_position_to_content: bool
    has_own_projections: bool
    """Distances have projections of their own; else they go through those of the contents."""
    has_distance_norm: bool
    """A norm on the vectors of the distances."""

    @property
    def num_distances(self) -> int:
        """Vectors of distances: both signs."""
        return 2 * (self.num_buckets or self.max_distance)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvolutionConfig:
    """A convolution over the embeddings that is added to the first layer (DeBERTa-v2 xlarge)."""

    kernel_size: int
    """K, an odd number."""
    activation: Activation


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(BlockConfig):
    """Every switch of the architecture; together with the weights it determines the function."""

    vocabulary_size: int
    num_layers: int
    """Layers with weights of their own."""
    layer_order: tuple[int, ...] | None = None
    """The layer that runs at each depth (ALBERT runs some again); None means each once."""
    max_length: int
    """Longest source the positions are defined for, in tokens, special tokens included."""
    num_token_types: int = 0
    """Types of tokens, such as "first text" and "second text" of a pair; 0 means untyped."""
    embedding_size: int | None = None
    """Width of the embeddings where a projection maps them to ``model_size`` (ALBERT, ELECTRA)."""
    uncounted_token: int | None = None
    """Positions count all tokens but this one, and start after its id (RoBERTa)."""
    has_position_bias: bool = False
    """The relative position bias of T5, besides what ``positions`` says (MPNet)."""
    has_first_norm: bool = True
    """The first self-attention has a norm; not where the embeddings were normed (ModernBERT)."""
    scopes: tuple[AttentionScope, ...] = ()
    """Of each layer; empty means that all see everything."""
    disentangled: DisentangledConfig | None = None
    convolution: ConvolutionConfig | None = None

    def __post_init__(self) -> None:
        """Checks the sizes, and what the switches require of each other."""
        super().__post_init__()
        if self.num_token_types < 0:
            raise ValueError(f"num_token_types must be at least 0, but is {self.num_token_types}")
        if self.max_length < 1:
            raise ValueError(f"max_length must be at least 1, but is {self.max_length}")
        if self.positions not in ("learned", "none") or self.is_embedding_scaled:
            raise ValueError(
                "encoders have positions 'learned' or 'none' and embeddings that are not scaled, "
                f"but have {self.positions!r}, {self.is_embedding_scaled}"
            )
        if self.scopes and len(self.scopes) != self.num_layers:
            raise ValueError(f"{self.num_layers} layers have {len(self.scopes)} attention scopes")
        if any(scope.rotary_base for scope in self.scopes) and self.head_size % 16:
            raise ValueError(
                f"head_size must be a multiple of 16 with rotary positions, but is {self.head_size}"
            )

    @property
    def num_positions(self) -> int:
        """Rows of the table of learned positions."""
        return self.max_length + self.first_position

    @property
    def first_position(self) -> int:
        """The row of the first token."""
        return 0 if self.uncounted_token is None else self.uncounted_token + 1
