"""Texts that end a target: found as it grows, kept out of streams, cut off at its end.

The search asks after each token; it knows of texts only what ``StopFinder`` says. So that a step
costs the same however long the target is, only its newest tokens are decoded: a window that moves
on as it grows. How a decoder treats the first tokens of a window (spaces that it strips, bytes of a
character that began before) may differ from how it treats them further on; so the window keeps more
text than a stop sequence has, and what is found in it is looked for in the whole text before it
counts.

Source: the semantics are those of ``StopStringCriteria`` of ``transformers``, on decoded text.
"""

from collections.abc import Iterable
from typing import Protocol

_NUM_SPARE_CHARACTERS = 16
"""Kept in a window beyond the longest stop sequence, where its beginning may be decoded wrongly."""


class TextDecoder(Protocol):
    """What is needed of a tokenizer."""

    def decode(self, token_ids: list[int]) -> str:
        """Text of token ids, special tokens removed."""

    def ends_in_bytes(self, token_ids: list[int]) -> bool:
        """Whether the last token of the text is a byte, which must not be parted from others."""


class StopSequences:
    """The stop sequences of one input. Has no state: what it was told is with the hypotheses."""

    def __init__(
        self, decoder: TextDecoder, sequences: tuple[str, ...], *, is_included: bool
    ) -> None:
        """Takes the sequences.

        Args:
            decoder: Of the target.
            sequences: Not empty, and none of them is.
            is_included: Whether a text ends with the sequence that ended it, not before.
        """
        self._decoder = decoder
        self._sequences = sequences
        self._is_included = is_included
        self._longest = max(map(len, sequences))
        self._num_kept = self._longest + _NUM_SPARE_CHARACTERS

    def find(self, tokens: list[int], window_start: int) -> tuple[str | None, int]:
        """Looks for a stop sequence that the newest token has completed.

        Args:
            tokens: The whole target, [T].
            window_start: What the call before returned for this target or its parent; 0 at first.

        Returns:
            The sequence that ends first, of those the longest, or None; and where the next window
            starts.
        """
        text = self._decoder.decode(tokens[window_start:])
        found = self._find_first(text)
        if found is not None and window_start:
            found = self._find_first(self._decoder.decode(tokens))
        if found is None and len(text) > 2 * self._num_kept:
            window_start = self._next_start(tokens, window_start)
        return found, window_start

    def cut(self, text: str, sequence: str) -> str:
        """The text of a target that a stop sequence ended, without what must not be seen."""
        end = text.index(sequence)
        return text[: end + len(sequence)] if self._is_included else text[:end]

    def trim(self, text: str) -> str:
        """What is certain of a text that goes on: without what may begin a stop sequence."""
        found = self._find_first(text)
        if found is not None:
            return self.cut(text, found)
        return text if self._is_included else hold_back(text, self._sequences)

    def _find_first(self, text: str) -> str | None:
        ends = [
            (start + len(sequence), start, sequence)
            for sequence in self._sequences
            if (start := text.find(sequence)) >= 0
        ]
        return min(ends)[2] if ends else None

    def _next_start(self, tokens: list[int], window_start: int) -> int:
        """The middle of the window, if enough text is left and no run of bytes is parted."""
        middle = (window_start + len(tokens)) // 2
        if self._decoder.ends_in_bytes(tokens[window_start:middle]):
            return window_start
        is_enough = len(self._decoder.decode(tokens[middle:])) >= self._num_kept
        return middle if is_enough else window_start


def hold_back(text: str, sequences: Iterable[str]) -> str:
    """A text without the longest end of it that is the beginning of one of some sequences."""
    end = len(text)
    for sequence in sequences:
        start = text.find(sequence[0], max(0, len(text) - len(sequence) + 1))
        while 0 <= start < end and not sequence.startswith(text[start:]):
            start = text.find(sequence[0], start + 1)
        if 0 <= start < end:
            end = start
    return text[:end]
