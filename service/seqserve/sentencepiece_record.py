"""The file of a tokenizer that ``sentencepiece`` runs, as export writes and the server reads it."""

from typing import Literal, Self

import pydantic

_PREFIX = '{"format":"seqserve-sentencepiece"'


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
        protected_namespaces=(),
    )


class AddedTokenRecord(_Record):
    """A token that texts are split at before SentencePiece sees them."""

    content: str
    token_id: int
    is_left_stripped: bool = False
    """Whether white space before it belongs to it."""
    is_right_stripped: bool = False


class SentencePieceRecord(_Record):
    """Everything that determines the tokens of a text and the text of tokens."""

    format: Literal["seqserve-sentencepiece"] = "seqserve-sentencepiece"
    format_version: Literal[1] = 1
    tokens: tuple[str | None, ...] = pydantic.Field(strict=False)
    """The entry of every id, for decoding; None for ids without one."""
    other_ids: dict[str, int] = pydantic.Field(default_factory=dict)
    """Pieces whose id, for encoding, is not the place of their first entry."""
    unknown_id: int
    """Stands for pieces that have no id."""
    special_ids: tuple[int, ...] = pydantic.Field(strict=False)
    """What decoding leaves out."""
    special_tokens: tuple[str, ...] = pydantic.Field(strict=False)
    """What decoding does not take for pieces, whatever their ids."""
    added_tokens: tuple[AddedTokenRecord, ...] = pydantic.Field(strict=False)
    prefix_ids: tuple[int, ...] = pydantic.Field(strict=False)
    """Put before every text."""
    suffix_ids: tuple[int, ...] = pydantic.Field(strict=False)
    has_language_prefix: bool
    """Whether ``>>xxx<<`` at the start of a text is one token."""
    decoding: Literal["pieces", "spaces", "pieces_and_spaces"]
    """How tokens become text: by SentencePiece; joined, with U+2581 turned into spaces; or by
    SentencePiece, with U+2581 turned into spaces where it does not know a piece."""
    is_space_cleaned: bool
    """Whether spaces before English punctuation are removed from text."""
    model: bytes
    """The file of the ``sentencepiece`` library."""
    decoding_model: bytes | None = None
    """The same for decoding, where it is another one."""

    @pydantic.model_validator(mode="after")
    def _check_ids(self) -> Self:
        num_tokens = len(self.tokens)
        ids = {
            "unknown_id": (self.unknown_id,),
            "prefix_ids": self.prefix_ids,
            "suffix_ids": self.suffix_ids,
            "added_tokens": tuple(token.token_id for token in self.added_tokens),
            "other_ids": tuple(self.other_ids.values()),
        }
        for name, values in ids.items():
            if not all(0 <= value < num_tokens for value in values):
                raise ValueError(
                    f"`{name}` must be at least 0 and below {num_tokens}, the number of entries"
                )
        return self


def is_sentencepiece_file(text: str) -> bool:
    """Whether a file holds a :class:`SentencePieceRecord`, not one of ``tokenizers``."""
    return text.startswith(_PREFIX)
