"""Tokenizers that ``sentencepiece`` runs: a model, and the ids that a checkpoint gives its pieces.

For checkpoints whose reference tokenizer is that library. Their files cannot become files of the
``tokenizers`` library: its normalizer replaces whole grapheme clusters where SentencePiece replaces
the longest match, so that marks are lost (``e``, acute, dot below become ``é``) and decomposed
letters stay decomposed.

Source: ``MarianTokenizer``, ``M2M100Tokenizer`` and ``PLBartTokenizer`` of ``transformers``.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pydantic

from seqserve.errors import ModelFolderError
from seqserve.sentencepiece_record import AddedTokenRecord, SentencePieceRecord

_SPACE = "\u2581"
SPACE_CLEAN_UP = (
    *((f" {sign}", sign) for sign in ".?!,"),
    (" ' ", "'"),
    *((f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")),
)
"""Replacements, in order, that remove the spaces around English punctuation.

Source: ``PreTrainedTokenizerBase.clean_up_tokenization`` of ``transformers``.
"""


@dataclasses.dataclass(slots=True)
class SentencePieceEncoding:
    """Tokens of one text, as parallel lists; offsets count code points."""

    ids: list[int] = dataclasses.field(default_factory=list)
    tokens: list[str] = dataclasses.field(default_factory=list)
    offsets: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    special_tokens_mask: list[int] = dataclasses.field(default_factory=list)

    def append(self, token_id: int, token: str, start: int, end: int, *, is_special: bool) -> None:
        """Adds a token."""
        self.ids.append(token_id)
        self.tokens.append(token)
        self.offsets.append((start, end))
        self.special_tokens_mask.append(int(is_special))

    def truncate(self, max_length: int) -> None:
        """Cuts tokens at the end."""
        for values in (self.ids, self.tokens, self.offsets, self.special_tokens_mask):
            del values[max_length:]


class SentencePieceTokenizer:
    """Has the methods of ``tokenizers.Tokenizer`` that serving and export use. Thread-safe."""

    truncation = None
    padding = None

    def __init__(self, record: SentencePieceRecord) -> None:
        """Opens the model.

        Raises:
            ModelFolderError: The ``sentencepiece`` library is absent or refuses the model.
        """
        try:
            import sentencepiece
        except ImportError as error:
            raise ModelFolderError(
                "this tokenizer needs the package sentencepiece; "
                "install it with: pip install 'seqserve[sentencepiece]'"
            ) from error
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=record.model)
            self._decoding_model = self._model
            if record.decoding_model is not None:
                self._decoding_model = sentencepiece.SentencePieceProcessor(
                    model_proto=record.decoding_model
                )
        except RuntimeError as error:
            raise ModelFolderError(f"the SentencePiece model is broken: {error}") from error
        self.record = record
        self._ids: dict[str, int] = {}
        for token_id, token in enumerate(record.tokens):
            if token is not None:
                self._ids.setdefault(token, token_id)
        self._ids.update(record.other_ids)
        self._added = {token.content: token for token in record.added_tokens}
        self._special_ids = frozenset(record.special_ids)
        self._special_tokens = frozenset(record.special_tokens)
        # The leftmost match, and of those that start there the longest.
        contents = sorted(self._added, key=len, reverse=True)
        self._splitter = re.compile("|".join(map(re.escape, contents))) if contents else None

    @classmethod
    def from_str(cls, text: str) -> Self:
        """Reads what :meth:`to_str` wrote.

        Raises:
            ModelFolderError: The text is malformed.
        """
        try:
            return cls(SentencePieceRecord.model_validate_json(text))
        except pydantic.ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = "".join(f"{part}: " for part in problem["loc"])
            raise ModelFolderError(where + problem["msg"].removeprefix("Value error, ")) from error

    def to_str(self) -> str:
        """Everything as one JSON text."""
        return self.record.model_dump_json()

    def save(self, path: str) -> None:
        """Writes :meth:`to_str` to a file."""
        Path(path).write_text(self.to_str(), encoding="utf-8")

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Id of every token."""
        return dict(self._ids)

    def id_to_token(self, token_id: int) -> str | None:
        """The entry of an id; None if it has none."""
        tokens = self.record.tokens
        return tokens[token_id] if 0 <= token_id < len(tokens) else None

    def num_special_tokens_to_add(self, is_pair: bool = False) -> int:
        """Special tokens that encoding adds to a text."""
        return len(self.record.prefix_ids) + len(self.record.suffix_ids)

    def encode(self, text: str, add_special_tokens: bool = True) -> SentencePieceEncoding:
        """Splits a text at added tokens, and what is between them into pieces."""
        encoding = SentencePieceEncoding()
        for start, end, added in self._split(text):
            if added is None:
                self._encode_part(text[start:end], start, encoding)
            else:
                encoding.append(added.token_id, added.content, start, end, is_special=False)
        return self.post_process(encoding, None, add_special_tokens)

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = True
    ) -> list[SentencePieceEncoding]:
        """Encodes each of several texts."""
        return [self.encode(text, add_special_tokens) for text in texts]

    def post_process(
        self, encoding: SentencePieceEncoding, pair: None = None, add_special_tokens: bool = True
    ) -> SentencePieceEncoding:
        """Puts the prefix before and the suffix after the tokens of a text."""
        if not add_special_tokens:
            return encoding
        whole = SentencePieceEncoding()
        self._append_special(self.record.prefix_ids, whole)
        whole.ids += encoding.ids
        whole.tokens += encoding.tokens
        whole.offsets += encoding.offsets
        whole.special_tokens_mask += encoding.special_tokens_mask
        self._append_special(self.record.suffix_ids, whole)
        return whole

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids; ids without an entry give none."""
        tokens = []
        for token_id in token_ids:
            is_entry = 0 <= token_id < len(self.record.tokens)
            token = self.record.tokens[token_id] if is_entry else None
            if token is not None and not (skip_special_tokens and token_id in self._special_ids):
                tokens.append(token)
        text = self._join(tokens).strip()
        if self.record.is_space_cleaned:
            for found, replacement in SPACE_CLEAN_UP:
                text = text.replace(found, replacement)
        return text

    def _join(self, tokens: Sequence[str]) -> str:
        if self.record.decoding == "spaces":
            return "".join(tokens).replace(_SPACE, " ")
        has_spaces = self.record.decoding == "pieces_and_spaces"
        text = ""
        pieces: list[str] = []
        for token in tokens:
            if token in self._special_tokens:
                text += str(self._decoding_model.decode_pieces(pieces))
                text += token + " " * has_spaces
                pieces = []
            else:
                pieces.append(token)
        text += str(self._decoding_model.decode_pieces(pieces))
        return text.replace(_SPACE, " ") if has_spaces else text

    def _split(self, text: str) -> Iterator[tuple[int, int, AddedTokenRecord | None]]:
        """Yields start and end of every part that is not empty, and which added token it is."""
        position = 0
        matches = self._splitter.finditer(text) if self._splitter is not None else ()
        for match in matches:
            added = self._added[match[0]]
            start, end = match.span()
            before = text[position:start]
            if added.is_left_stripped:
                before = before.rstrip()
            if before:
                yield position, position + len(before), None
            yield start, end, added
            position = end
            while added.is_right_stripped and text[position : position + 1].isspace():
                position += 1
        if position < len(text):
            yield position, len(text), None

    def _encode_part(self, part: str, start: int, encoding: SentencePieceEncoding) -> None:
        if self.record.has_language_prefix and part.startswith(">>") and "<<" in part:
            end = part.index("<<") + 2
            self._append_piece(part[:end], start, start + end, encoding)
            part, start = part[end:], start + end
        mapping = self._model.encode(part, out_type="offset_mapping")
        for piece, (first, last) in zip(mapping["pieces"], mapping["offsets"], strict=True):
            self._append_piece(piece, start + first, start + last, encoding)

    def _append_piece(
        self, piece: str, start: int, end: int, encoding: SentencePieceEncoding
    ) -> None:
        token_id = self._ids.get(piece, self.record.unknown_id)
        encoding.append(token_id, piece, start, end, is_special=False)

    def _append_special(self, ids: Sequence[int], encoding: SentencePieceEncoding) -> None:
        for token_id in ids:
            encoding.append(token_id, self.record.tokens[token_id] or "", 0, 0, is_special=True)
