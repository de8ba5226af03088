"""The switches of the architecture; together with the weights they determine the function."""

import dataclasses
from typing import Literal

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "tanh"]


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
    activation: Activation = "gelu"
    is_gated: bool = False
    """The feed-forward hidden layer is ``activation(gate(x)) * up(x)``."""
    positions: Literal["learned", "sinusoidal", "relative", "none"] = "learned"
    sinusoidal_rates: Literal["vaswani", "tensor2tensor"] = "vaswani"
    """Which rates the sinusoids have, see ``positions``."""
    sinusoidal_offset: int = 0
    """The place of the first token on the sinusoids (2 in M2M100)."""
    has_position_bias_per_layer: bool = False
    """Each layer learns its own relative position bias (UMT5) instead of one for its stack."""
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
    has_norm_bias: bool = True
    """Layer norms have biases."""
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
