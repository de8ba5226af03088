"""Text to token ids and back. Nothing else sees text.

The Rust ``tokenizers`` library does it, or ``sentencepiece`` where a checkpoint's reference does.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from seqserve.errors import InvalidRequestError, ModelFolderError
from seqserve.sentencepiece_record import is_sentencepiece_file
from seqserve.sentencepiece_tokenizer import SPACE_CLEAN_UP, SentencePieceTokenizer

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclasses.dataclass(frozen=True, slots=True)
class TokenSpan:
    """One token with its place in the text."""

    token_id: int
    text: str
    """The vocabulary entry."""
    start: int
    """First character, in code points."""
    end: int
    is_special: bool
    """Whether the tokenizer's rules added it."""


class _Library(Protocol):
    """What both libraries offer, under the names of ``tokenizers``."""

    @property
    def truncation(self) -> Any: ...

    @property
    def padding(self) -> Any: ...

    def get_vocab(self, with_added_tokens: bool) -> dict[str, int]: ...

    def id_to_token(self, id: int, /) -> str | None: ...

    def num_special_tokens_to_add(self, is_pair: bool) -> int: ...

    def encode(self, text: str, /, *, add_special_tokens: bool = True) -> Any: ...

    def post_process(self, encoding: Any, pair: Any, add_special_tokens: bool, /) -> Any: ...

    def decode(self, ids: Sequence[int], /, *, skip_special_tokens: bool) -> str: ...


class Tokenizer:
    """One ``tokenizer.json``. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            ModelFolderError: The file is no tokenizer, or it would cut or pad texts unasked.
        """
        self._tokenizer: _Library
        self.rewritten: tuple[str, ...] = ()
        """What decoding replaces in a text, so that its beginning is not certain to stay."""
        try:
            text = path.read_text(encoding="utf-8")
            if is_sentencepiece_file(text):
                pieces = SentencePieceTokenizer.from_str(text)
                self._tokenizer, self._special_ids = pieces, frozenset(pieces.record.special_ids)
                if pieces.record.is_space_cleaned:
                    self.rewritten = tuple(found for found, _ in SPACE_CLEAN_UP)
            else:
                rust = tokenizers.Tokenizer.from_str(text)
                added = rust.get_added_tokens_decoder()
                self._tokenizer = rust
                self._special_ids = frozenset(one for one, token in added.items() if token.special)
        except ModelFolderError as error:
            raise ModelFolderError(f"{path}: {error}") from error
        except Exception as error:  # the Rust library raises bare Exception
            raise ModelFolderError(f"{path} is not a tokenizer: {error}") from error
        if self._tokenizer.truncation is not None or self._tokenizer.padding is not None:
            raise ModelFolderError(
                f"{path} cuts or pads texts by itself; lengths are the manifest's business"
            )

    @property
    def vocabulary_size(self) -> int:
        """One more than the highest id; a vocabulary may leave ids out."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    @property
    def num_added_tokens(self) -> int:
        """Special tokens that encoding adds to a text."""
        return int(self._tokenizer.num_special_tokens_to_add(is_pair=False))

    @property
    def num_added_pair_tokens(self) -> int:
        """Special tokens that encoding adds to a pair of texts."""
        return int(self._tokenizer.num_special_tokens_to_add(is_pair=True))

    @property
    def marks_subwords(self) -> bool:
        """Whether the vocabulary writes what continues a word otherwise than what begins one."""
        model = getattr(self._tokenizer, "model", None)
        return bool(getattr(model, "continuing_subword_prefix", None))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, special tokens included."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[Any]:
        """Tokens of texts with special tokens, as the library's encodings, without offsets.

        Other threads run meanwhile: the library holds Python's lock for a text alone, but not for
        several.
        """
        if isinstance(self._tokenizer, tokenizers.Tokenizer):
            return self._tokenizer.encode_batch_fast(list(texts))
        return [self._tokenizer.encode(text) for text in texts]

    def encode_plain(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, without special tokens around it."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def split(self, text: str) -> Any:
        """Tokens of a text without special tokens, as the library's encoding."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def frame(self, plain: Any, pair: Any = None) -> Any:
        """Puts special tokens around what ``split`` returned, or around a pair of such."""
        return self._tokenizer.post_process(plain, pair, True)

    def encode_truncated(self, text: str, max_length: int) -> tuple[list[int], int]:
        """Token ids of a text, cut at its end to at most ``max_length``.

        Special tokens are kept: only tokens of the text are cut.

        Returns:
            The ids, and how many tokens were cut.

        Raises:
            InvalidRequestError: Not even the special tokens fit, so no text does.
        """
        num_kept = self.count_room(max_length)
        plain = self.split(text)
        num_cut = max(0, len(plain.ids) - num_kept)
        if num_cut:
            plain.truncate(num_kept)
        ids: list[int] = self.frame(plain).ids
        return ids, num_cut

    def count_room(self, max_length: int, *, is_pair: bool = False) -> int:
        """How many tokens of a text, or of a pair, fit beside the special tokens.

        Raises:
            InvalidRequestError: Not even the special tokens fit.
        """
        num_added = self.num_added_pair_tokens if is_pair else self.num_added_tokens
        if num_added > max_length:
            what = "pair of texts" if is_pair else "text"
            raise InvalidRequestError(
                "",
                f"no {what} fits into {max_length} tokens: {num_added} special tokens are added to "
                f"every {what}; use another model, or token ids if the method takes them",
            )
        return max_length - num_added

    def spans(self, text: str, check_count: Callable[[int], None] | None = None) -> list[TokenSpan]:
        """Tokens of a text with their offsets.

        Args:
            text: The text.
            check_count: Called with the number of tokens before anything is made of each; what it
                raises passes through.
        """
        encoding = self._tokenizer.encode(text)
        if check_count is not None:
            check_count(len(encoding.ids))
        return [
            TokenSpan(token_id, token, start, end, bool(is_special))
            for token_id, token, (start, end), is_special in zip(
                encoding.ids,
                encoding.tokens,
                encoding.offsets,
                encoding.special_tokens_mask,
                strict=True,
            )
        ]

    def decode(self, token_ids: list[int]) -> str:
        """Text of token ids, special tokens removed."""
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=True)
        return text

    def decode_all(self, token_ids: list[int]) -> str:
        """Text of token ids with special tokens."""
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=False)
        return text

    def join(self, entries: list[str]) -> str:
        """Text of vocabulary entries.

        Source: ``convert_tokens_to_string`` of ``transformers``.
        """
        decoder = getattr(self._tokenizer, "decoder", None)
        return " ".join(entries) if decoder is None else str(decoder.decode(entries))

    def find(self, entry: str) -> int | None:
        """The id of a vocabulary entry, if there is such."""
        if isinstance(self._tokenizer, tokenizers.Tokenizer):
            return self._tokenizer.token_to_id(entry)
        return self._tokenizer.get_vocab(with_added_tokens=True).get(entry)

    def entry(self, token_id: int) -> str:
        """The vocabulary entry of an id; empty if it has none."""
        return self._tokenizer.id_to_token(token_id) or ""

    def is_special(self, token_id: int) -> bool:
        """Whether an id is one that texts are decoded without."""
        return token_id in self._special_ids

    def ends_in_bytes(self, token_ids: list[int]) -> bool:
        """Whether the last token of the text is a byte, like ``<0xE6>``.

        A decoder with byte fallback reads a run of such tokens as a whole: one byte that does not
        fit makes replacement characters of all.
        """
        for token_id in reversed(token_ids):
            if token_id not in self._special_ids:
                return _BYTE.fullmatch(self.entry(token_id)) is not None
        return False
