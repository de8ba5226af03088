"""Which parts a variant is made of."""

import dataclasses
from typing import Literal

from seqserve_export.transformer_config import TransformerConfig
from seqserve_export.variants.image_encoder import VOCABULARY_SIZE

SelfScore = Literal["dot_product", "general", "additive", "single_head"]
CrossScore = Literal["dot_product", "general", "additive", "location", "single_head", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariantConfig:
    """What differs from the Transformer; sizes are those of :class:`TransformerConfig`.

    Whether a dot product is scaled, and how many heads there are, is said there, too. A recurrent
    model has one layer on each side, one head of the size of its state, and no positions.
    """

    encoder: Literal["transformer", "recurrent", "image"] = "transformer"
    """Self-attention over tokens, a recurrent network in both directions, or convolutions with
    self-attention between them over an image, each of whose columns is a token."""
    decoder: Literal["transformer", "recurrent", "concatenation"] = "transformer"
    """Self- and cross-attention, a recurrent network, or self-attention alone over source and
    target, whose layers are those of the encoder."""
    self_score: SelfScore = "dot_product"
    """How a token of a sequence scores another."""
    cross_score: CrossScore = "dot_product"
    """How a token of the target scores those of the source; "none" is for recurrent models: one
    state, of a fixed size, is all that is known of the source."""


def check_variant(variant: VariantConfig, config: TransformerConfig) -> None:
    """Checks that the parts fit each other.

    Raises:
        ValueError: They do not.
    """
    is_recurrent = variant.decoder == "recurrent"
    if is_recurrent != (variant.encoder == "recurrent"):
        raise ValueError("a recurrent decoder and a recurrent encoder must come together")
    if is_recurrent and variant.cross_score not in ("additive", "none"):
        raise ValueError(
            'the cross_score of a recurrent model must be "additive" or "none", but is '
            f'"{variant.cross_score}"'
        )
    if not is_recurrent and variant.cross_score == "none":
        raise ValueError('cross_score "none" is for recurrent models')
    if is_recurrent and (config.num_decoder_layers, config.num_heads) != (1, 1):
        raise ValueError(
            "a recurrent model must have one decoder layer with one head, but has "
            f"{config.num_decoder_layers} with {config.num_heads}"
        )
    if variant.decoder == "concatenation":
        if variant.encoder != "transformer" or config.num_encoder_layers:
            raise ValueError(
                "a decoder over the concatenation has the only layers: num_encoder_layers must be 0"
            )
        if (variant.self_score, variant.cross_score) != ("dot_product", "dot_product"):
            raise ValueError("a decoder over the concatenation must score by dot products")
    scores = {variant.self_score, variant.cross_score}
    if config.attention_scale is not None and scores != {"dot_product"}:
        raise ValueError(
            "attention_scale is a factor of dot products, but the scores are "
            f"{', '.join(sorted(scores))}"
        )
    if variant.encoder == "image" and config.source_vocabulary_size != VOCABULARY_SIZE:
        raise ValueError(
            f"an image has {VOCABULARY_SIZE} source tokens, but source_vocabulary_size is "
            f"{config.source_vocabulary_size}"
        )
    if config.positions == "relative" and (
        variant.decoder == "concatenation" or variant.self_score != "dot_product"
    ):
        raise ValueError('positions "relative" need self-attention by dot products')
