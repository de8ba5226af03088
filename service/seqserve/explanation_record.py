"""How to look inside a model: the section of a manifest about its explain graph."""

from typing import Annotated, Self

import pydantic

from seqserve.attention_kind import AttentionKind
from seqserve.task_record import Count, FileName, Record

_Index = Annotated[int, pydantic.Field(ge=0)]
_Share = Annotated[float, pydantic.Field(ge=0, le=1)]


class AlignmentRecord(Record):
    """Which heads of cross-attention tell what a target token came from."""

    heads: Annotated[
        tuple[Annotated[tuple[_Index, _Index], pydantic.Field(strict=False)], ...],
        pydantic.Field(min_length=1, strict=False),
    ]
    """Layer and head of each; their mean is the alignment."""
    criterion: str
    """What they were chosen by."""
    agreement: _Share
    """How far it holds of their mean."""
    last_layer_agreement: _Share
    """How far it holds of the mean of all heads of the last layer."""
    count: Count
    """Target tokens it was measured on."""


class ExplanationRecord(Record):
    """What a model's explain graph tells. Nothing is served from it but that."""

    graph: FileName
    num_encoder_layers: Annotated[int, pydantic.Field(ge=0)]
    """Layers in which the source looks at itself, a shared one as often as it runs."""
    num_decoder_layers: Annotated[int, pydantic.Field(ge=0)] = 0
    """Layers in which the target looks at itself and at the source; 0 for encoders."""
    is_recurrent: bool = False
    """Whether the target looks at the source alone."""
    num_heads: Count
    """Of each layer, H."""
    has_token_types: bool = False
    """Whether the graph tells the texts of a pair apart by the types of their tokens."""

    alignment: AlignmentRecord | None = None
    """None for encoders, and where too little could be measured."""

    @pydantic.model_validator(mode="after")
    def _check_layers(self) -> Self:
        if not self.layers:
            raise ValueError("there must be a layer of some kind")
        for layer, head in self.alignment.heads if self.alignment else ():
            if layer >= self.num_decoder_layers or head >= self.num_heads:
                raise ValueError(f"the model has no head {head} in a decoder layer {layer}")
        return self

    @property
    def layers(self) -> dict[AttentionKind, int]:
        """How many layers there are of each kind of attention."""
        layers = {
            AttentionKind.ENCODER_SELF: self.num_encoder_layers,
            AttentionKind.DECODER_SELF: 0 if self.is_recurrent else self.num_decoder_layers,
            AttentionKind.CROSS: self.num_decoder_layers,
        }
        return {kind: number for kind, number in layers.items() if number}
