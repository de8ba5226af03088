"""A text that grows token by token, for streams: what of it is certain, and new."""

from collections.abc import Callable

from seqserve.stop_sequences import hold_back
from seqserve.tokenizer import Tokenizer


class TextStream:
    """Turns a growing list of token ids into pieces of text.

    The pieces joined are at any time the decoded text of some first ids, and after ``finish`` that
    of all ids, provided the decoder never changes a text it gave when more ids come. Byte-level,
    byte-fallback, WordPiece, Metaspace, BPE and SentencePiece decoders are such; of the last, what
    may be the beginning of something that decoding replaces is held back. What was sent cannot be
    taken back: with another decoder pieces stop where it rewrites, go on if the text continues the
    sent one again, and only the result has the final text for certain.

    Source: the decoders of ``tokenizers``.
    """

    def __init__(self, tokenizer: Tokenizer, trim: Callable[[str], str] | None = None) -> None:
        """Begins a text.

        Args:
            tokenizer: What decodes.
            trim: Removes from the end of a text that goes on what must not be sent yet; None
                removes nothing.
        """
        self._tokenizer = tokenizer
        self._trim = trim
        self._token_ids: list[int] = []
        self._sent = ""

    def push(self, token_ids: list[int]) -> str:
        """Adds ids; returns the text that is now certain, often empty or one word."""
        self._token_ids += token_ids
        text = self._tokenizer.decode(self._token_ids)
        # U+FFFD at the end is the first part of a character whose other bytes are still to come.
        if text.endswith("\ufffd") or self._tokenizer.ends_in_bytes(self._token_ids):
            return ""
        text = hold_back(text, self._tokenizer.rewritten)
        return self._advance(text if self._trim is None else self._trim(text))

    def finish(self, text: str) -> str:
        """The rest, once the final text is known; empty if the decoder took back what was sent."""
        return self._advance(text)

    def _advance(self, text: str) -> str:
        if not text.startswith(self._sent):
            return ""
        piece = text[len(self._sent) :]
        self._sent = text
        return piece
