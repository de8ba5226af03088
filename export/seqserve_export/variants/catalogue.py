"""The variants that are compared, by name, with sizes that give them about as many parameters."""

import dataclasses
from typing import Any

from seqserve_export.transformer_config import TransformerConfig
from seqserve_export.variants.image_encoder import VOCABULARY_SIZE
from seqserve_export.variants.lettering import MAX_COLUMNS
from seqserve_export.variants.variant_config import VariantConfig
from seqserve_export.variants.variant_model import VariantModel

_SIZE = 64
_NUM_HEADS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One variant."""

    title: str
    """What the report calls it."""
    variant: VariantConfig
    switches: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the Transformer, other than usual."""

    num_budgets: int = 1
    """How many times the steps of the others it is trained for."""

    @property
    def is_image(self) -> bool:
        """Whether it reads images of words, rather than their letters."""
        return self.variant.encoder == "image"

    def make_model(
        self, source_vocabulary_size: int, target_vocabulary_size: int, max_length: int
    ) -> VariantModel:
        """Makes the model, with the weights that its parts begin with.

        Args:
            source_vocabulary_size: Of texts; images have their own.
            target_vocabulary_size: V.
            max_length: Of sources and targets in tokens; images have their own.
        """
        sizes: dict[str, Any] = {
            "model_size": _SIZE,
            "num_heads": _NUM_HEADS,
            "head_size": _SIZE // _NUM_HEADS,
            "feed_forward_size": 3 * _SIZE,
            "positions": "sinusoidal",
            "is_embedding_scaled": True,
            "dropout": 0.1,
            "source_vocabulary_size": source_vocabulary_size,
            "target_vocabulary_size": target_vocabulary_size,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "max_source_length": max_length,
            "max_target_length": max_length,
        }
        return VariantModel(TransformerConfig(**(sizes | self.switches)), self.variant)


def _make_recurrent(state_size: int) -> dict[str, Any]:
    return {
        "num_heads": 1,
        "head_size": state_size,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "positions": "none",
    }


CATALOGUE: dict[str, Entry] = {
    "transformer": Entry(title="Transformer: scaled dot product, 4 heads", variant=VariantConfig()),
    "dot-product": Entry(
        title="dot product, not scaled",
        variant=VariantConfig(),
        switches={"attention_scale": 1.0},
    ),
    "general": Entry(
        title="general (bilinear)",
        variant=VariantConfig(self_score="general", cross_score="general"),
        switches={"feed_forward_size": 240},
    ),
    "additive": Entry(
        title="additive, in cross-attention",
        variant=VariantConfig(cross_score="additive"),
    ),
    "additive-everywhere": Entry(
        title="additive, in self-attention, too",
        variant=VariantConfig(self_score="additive", cross_score="additive"),
    ),
    "location": Entry(
        title="location-based, in cross-attention",
        variant=VariantConfig(cross_score="location"),
    ),
    "single-head": Entry(
        title="1 head",
        variant=VariantConfig(),
        switches={"num_heads": 1, "head_size": _SIZE},
    ),
    "single-head-self": Entry(
        title="1 head in self-, 4 in cross-attention",
        variant=VariantConfig(self_score="single_head"),
    ),
    "single-head-cross": Entry(
        title="4 heads in self-, 1 in cross-attention",
        variant=VariantConfig(cross_score="single_head"),
    ),
    "concatenation": Entry(
        title="one stack over source and target",
        variant=VariantConfig(decoder="concatenation"),
        switches={"num_encoder_layers": 0, "num_decoder_layers": 4, "feed_forward_size": 256},
    ),
    "recurrent": Entry(
        title="recurrent, without attention",
        variant=VariantConfig(encoder="recurrent", decoder="recurrent", cross_score="none"),
        switches=_make_recurrent(120),
    ),
    "recurrent-attention": Entry(
        title="recurrent, with additive attention",
        variant=VariantConfig(encoder="recurrent", decoder="recurrent", cross_score="additive"),
        switches=_make_recurrent(112),
    ),
    "image": Entry(
        title="image of a word to its letters",
        variant=VariantConfig(encoder="image"),
        switches={"source_vocabulary_size": VOCABULARY_SIZE, "max_source_length": MAX_COLUMNS},
        num_budgets=2,
    ),
}
