"""What calls of models with heads return: plain records, no protocol messages."""

import dataclasses

from seqserve.client.results import Timing


@dataclasses.dataclass(frozen=True, slots=True)
class LabelScore:
    """A label and how well it fits."""

    label: str
    score: float
    logit: float | None
    """None when not asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Classification:
    """The labels of one input."""

    labels: tuple[LabelScore, ...]
    """Largest score first."""
    token_count: int
    truncated_token_count: int
    timing: Timing

    @property
    def label(self) -> str:
        """The label with the largest score."""
        return self.labels[0].label


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """A labelled part of a text."""

    label: str
    score: float
    word: str
    """As the tokenizer writes it."""
    start_offset: int
    """First character, in code points: a slice of the text is the part itself."""
    end_offset: int
    start_byte_offset: int
    """First byte, in UTF-8."""
    end_byte_offset: int
    token_index: int | None
    """None where tokens are joined."""


@dataclasses.dataclass(frozen=True, slots=True)
class TokenClassification:
    """The labelled parts of one text."""

    entities: tuple[Entity, ...]
    """In the order of the text."""
    token_count: int
    truncated_token_count: int
    window_count: int
    timing: Timing


@dataclasses.dataclass(frozen=True, slots=True)
class RankedDocument:
    """How well one document fits a query."""

    index: int
    """Which of the documents."""
    score: float
    document: str
    """Empty when not asked for."""
    token_count: int
    truncated_token_count: int
    timing: Timing


@dataclasses.dataclass(frozen=True, slots=True)
class MaskToken:
    """A token that may stand in place of a mask."""

    token_id: int
    text: str
    score: float
    sequence: str
    """The text with the mask replaced; empty when not asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class MaskFilling:
    """What may stand in place of the masks of one text."""

    masks: tuple[tuple[MaskToken, ...], ...]
    """Of each mask, the most probable first."""
    token_count: int
    truncated_token_count: int
    timing: Timing
