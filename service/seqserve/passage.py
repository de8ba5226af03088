"""What an encoder reads at once: a text, a part of one, or a pair of texts, as tokens."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from typing import Any, Literal

from seqserve.tokenizer import Tokenizer

Side = Literal["right", "left"]
"""Which side of a text is cut."""


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """Tokens with their types and places, special tokens included."""

    tokens: tuple[int, ...]
    types: tuple[int, ...]
    """Which text of a pair each token is of, where the model is told."""
    offsets: tuple[tuple[int, int] | None, ...]
    """First character of each token in its text and one past the last; None for special tokens.
    Empty where nobody asks for them."""
    num_truncated: int
    """Tokens that were cut."""
    pair_start: int = 0
    """Index of the first token of the second text of a pair, where somebody asks for offsets; 0 for
    single texts."""


def read_text(tokenizer: Tokenizer, text: str, max_length: int, side: Side = "right") -> Passage:
    """Reads a text, cut to at most ``max_length`` tokens with special tokens.

    Raises:
        InvalidRequestError: Not even the special tokens fit.
    """
    num_kept = tokenizer.count_room(max_length)
    plain = tokenizer.split(text)
    # Of the plain tokens: framing would trim spaces a second time.
    offsets = plain.offsets
    num_cut = max(0, len(offsets) - num_kept)
    if num_cut:
        plain.truncate(num_kept, direction=side)
        offsets = offsets[:num_kept] if side == "right" else offsets[num_cut:]
    return _to_passage(tokenizer.frame(plain), offsets, num_cut)


def read_texts(
    tokenizer: Tokenizer, texts: Items[str], max_length: int, side: Side = "right"
) -> Iterator[Passage]:
    """Reads several texts as ``read_text`` does, but without offsets; takes two thirds of its time.

    Raises:
        InvalidRequestError: Not even the special tokens fit.
    """
    tokenizer.count_room(max_length)
    for text, encoding in zip(texts, tokenizer.encode_all(texts), strict=True):
        tokens = tuple(encoding.ids)
        if len(tokens) <= max_length:
            yield Passage(tokens, tuple(encoding.type_ids), (), 0)
        else:
            yield dataclasses.replace(read_text(tokenizer, text, max_length, side), offsets=())


def read_windows(
    tokenizer: Tokenizer,
    text: str,
    max_length: int,
    stride: int,
    check_count: Callable[[int], None] | None = None,
) -> list[Passage]:
    """Reads a text in windows of at most ``max_length`` tokens with special tokens.

    Args:
        tokenizer: What splits the text.
        text: The text.
        max_length: Longest window.
        stride: Tokens neighbouring windows have in common, fewer than there is room for.
        check_count: Called with the number of windows before they are made; what it raises passes
            through.

    Returns:
        One window if the text fits.

    Raises:
        InvalidRequestError: Not even the special tokens fit.
    """
    num_kept = tokenizer.count_room(max_length)
    plain = tokenizer.split(text)
    offsets, step = plain.offsets, num_kept - stride
    if check_count is not None:
        check_count(1 + max(0, -((num_kept - len(offsets)) // step)))  # rounded up
    plain.truncate(num_kept, stride=stride)
    return [
        _to_passage(tokenizer.frame(window), offsets[index * step : index * step + num_kept], 0)
        for index, window in enumerate([plain, *plain.overflowing])
    ]


class PairReader:
    """Reads pairs that have their first text in common."""

    def __init__(self, tokenizer: Tokenizer, first: str, max_length: int, side: Side) -> None:
        """Tokenizes the first text.

        Raises:
            InvalidRequestError: Not even the special tokens fit.
        """
        self._tokenizer = tokenizer
        self._side: Side = side
        self._num_kept = tokenizer.count_room(max_length, is_pair=True)
        self._first = tokenizer.split(first)
        self._first_length = len(self._first.ids)
        self._first.truncate(self._num_kept, direction=side)
        if self._first.overflowing:
            self._first = _without_overflow(self._first)

    def read(self, second: str, *, has_offsets: bool = False) -> Passage:
        """Reads a pair, the longer text cut first until both fit; with places if asked for."""
        pair = self._tokenizer.split(second)
        first, lengths = self._first, (self._first_length, len(pair.ids))
        kept = _share(lengths, self._num_kept)
        if kept[0] < len(first.ids):
            first = type(first).merge([first], growing_offsets=False)
            first.truncate(kept[0], direction=self._side)
        pair.truncate(kept[1], direction=self._side)
        offsets = [*first.offsets, *pair.offsets] if has_offsets else None
        passage = _to_passage(self._tokenizer.frame(first, pair), offsets, sum(lengths) - sum(kept))
        if not has_offsets or not pair.ids:
            return passage
        places = [index for index, place in enumerate(passage.offsets) if place is not None]
        return dataclasses.replace(passage, pair_start=places[len(first.ids)])


def _without_overflow(encoding: Any) -> Any:
    """An encoding alone: the library keeps what was cut off, and copies it with every pair."""
    state = json.loads(encoding.__getstate__())
    state["overflowing"] = []
    alone = type(encoding)()
    alone.__setstate__(json.dumps(state).encode())
    return alone


def _share(lengths: tuple[int, int], room: int) -> tuple[int, int]:
    """How much of each text of a pair is kept: all of the shorter, if half of the room is enough.

    Source: ``LongestFirst`` of ``tokenizers``.
    """
    if sum(lengths) <= room:
        return lengths
    short, long = sorted(lengths)
    if 2 * short <= room:
        long = room - short
    else:
        short, long = room // 2, room - room // 2
    return (short, long) if lengths[0] <= lengths[1] else (long, short)


def _to_passage(framed: Any, offsets: list[tuple[int, int]] | None, num_truncated: int) -> Passage:
    places: list[tuple[int, int] | None] = []
    if offsets is not None:
        remaining = iter(offsets)
        places = [None if special else next(remaining) for special in framed.special_tokens_mask]
    return Passage(tuple(framed.ids), tuple(framed.type_ids), tuple(places), num_truncated)
