"""The Transformer with other parts in the places of its own.

Shapes: B rows, H heads, S source length, T target length, P keys.
"""

import torch
from torch import Tensor, nn

from seqserve.attention_kind import AttentionKind
from seqserve_export.multi_head_attention import CrossAttention, SelfAttention
from seqserve_export.transformer import KindLayers, Transformer
from seqserve_export.transformer_config import TransformerConfig
from seqserve_export.variants.concatenation import ConcatenatedDecoder, SourcePass, make_layers
from seqserve_export.variants.image_encoder import ColumnPixels, ImageEncoder
from seqserve_export.variants.recurrent_decoder import RecurrentDecoder
from seqserve_export.variants.recurrent_encoder import RecurrentEncoder
from seqserve_export.variants.score import AdditiveScore, LocationScore, SingleHeadScore
from seqserve_export.variants.scored_attention import (
    ScoredCrossAttention,
    ScoredSelfAttention,
    use_states_as_queries,
)
from seqserve_export.variants.variant_config import VariantConfig, check_variant


class VariantModel(Transformer):
    """Embeddings, an encoder, a decoder and a head, as the configuration of the variant says."""

    def __init__(self, config: TransformerConfig, variant: VariantConfig) -> None:
        """Makes the model with the weights that its parts begin with.

        Raises:
            ValueError: The parts do not fit each other.
        """
        check_variant(variant, config)
        super().__init__(config)
        self.variant = variant
        if variant.encoder == "image":
            self.set_submodule("source_embedding", ColumnPixels())
            self.set_submodule("encoder", ImageEncoder(config))
        match variant.decoder:
            case "transformer":
                self._change_scores()
            case "concatenation":
                layers = make_layers(config)
                self.set_submodule("encoder", SourcePass(layers))
                self.set_submodule("decoder", ConcatenatedDecoder(config, layers))
            case "recurrent":
                is_attentive = variant.cross_score == "additive"
                encoder = RecurrentEncoder(
                    config.model_size, config.head_size, is_summarized=not is_attentive
                )
                self.set_submodule("encoder", encoder)
                self.set_submodule("decoder", RecurrentDecoder(config, is_attentive=is_attentive))

    @property
    def family(self) -> str:
        """What the manifest calls it."""
        return "variant"

    @property
    def cache_dtype(self) -> torch.dtype:
        """Number format of keys and values."""
        return torch.float32

    @property
    def attention_layers(self) -> KindLayers:
        """How many layers there are of each kind of attention."""
        num_layers = self.config.num_decoder_layers
        match self.variant.decoder:
            case "concatenation":
                # What leaves the last layer of the source, nobody looks at.
                layers = dict.fromkeys(AttentionKind, num_layers)
                layers[AttentionKind.ENCODER_SELF] -= 1
            case "recurrent":
                layers = {AttentionKind.CROSS: int(self.variant.cross_score != "none")}
            case _:
                return super().attention_layers
        return {kind: number for kind, number in layers.items() if number}

    def sort_attention(self, record: list[Tensor], source_length: int) -> list[Tensor]:
        """Puts recorded weights into the order of the kinds, see :class:`Transformer`.

        Of the concatenation, source and target are taken apart: rows of both together sum to 1.
        """
        match self.variant.decoder:
            case "concatenation":
                num_before = self.config.num_decoder_layers - 1
                room = self.config.max_source_length
                places = torch.arange(source_length).clamp(max=room - 1)
                of_both = record[num_before:]
                return [
                    *record[:num_before],
                    *(weights[..., room:] for weights in of_both),
                    *(weights.index_select(3, places) for weights in of_both),
                ]
            case "recurrent":
                return [torch.cat(record, dim=2)]  # of each step, [B, 1, 1, S] -> [B, 1, T, S]
        weights = super().sort_attention(record, source_length)
        # One head that serves all values is told as each of them.
        return [one.expand(-1, self.config.num_heads, -1, -1) for one in weights]

    def _change_scores(self) -> None:
        for name, module in list(self.named_modules()):
            match module:
                case SelfAttention():
                    self._change_self_score(name, module)
                case CrossAttention():
                    self._change_cross_score(name, module)

    def _change_self_score(self, name: str, attention: SelfAttention) -> None:
        score: nn.Module
        sizes = (self.config.num_heads, self.config.head_size)
        match self.variant.self_score:
            case "dot_product":
                return
            case "general":
                use_states_as_queries(attention)
                return
            case "additive":
                score = AdditiveScore(*sizes)
            case "single_head":
                score = SingleHeadScore(*sizes)
        self.set_submodule(name, ScoredSelfAttention(self.config, score))

    def _change_cross_score(self, name: str, attention: CrossAttention) -> None:
        score: nn.Module
        sizes = (self.config.num_heads, self.config.head_size)
        match self.variant.cross_score:
            case "general":
                use_states_as_queries(attention)
                return
            case "additive":
                score = AdditiveScore(*sizes)
            case "single_head":
                score = SingleHeadScore(*sizes)
            case "location":
                score = LocationScore(*sizes, self.config.max_source_length)
            case _:
                return
        self.set_submodule(name, ScoredCrossAttention(self.config, score))
