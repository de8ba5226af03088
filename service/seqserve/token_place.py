"""Where tokens stand: in the text they were made of, or in the text that is made of them."""

from collections.abc import Sequence as Items
from typing import NamedTuple

from seqserve.tokenizer import Tokenizer, TokenSpan

NOWHERE = (0, 0)
"""The place of a token that its text does not contain."""


class PlacedTokens(NamedTuple):
    """Tokens with their places."""

    text: str
    """What the places are in."""
    spans: list[TokenSpan]


class CutTokens(NamedTuple):
    """Tokens of a text that may have been too long."""

    spans: list[TokenSpan]
    num_truncated: int
    """Tokens that were cut."""


def read_placed(tokenizer: Tokenizer, text: str, max_length: int) -> CutTokens:
    """Reads a text, cut at its end to at most ``max_length`` tokens with special tokens.

    Raises:
        InvalidRequestError: Not even the special tokens fit.
    """
    num_kept = tokenizer.count_room(max_length)
    plain = tokenizer.split(text)
    # Of the plain tokens: framing would trim spaces a second time.
    places = iter(plain.offsets[:num_kept])
    num_cut = max(0, len(plain.ids) - num_kept)
    if num_cut:
        plain.truncate(num_kept)
    framed = tokenizer.frame(plain)
    return CutTokens(
        [
            place_token(tokenizer, token, None if is_special else next(places))
            for token, is_special in zip(framed.ids, framed.special_tokens_mask, strict=True)
        ],
        num_cut,
    )


def place_token(tokenizer: Tokenizer, token: int, place: tuple[int, int] | None) -> TokenSpan:
    """A token at a place; None for one that is added to texts."""
    return TokenSpan(token, tokenizer.entry(token), *(place or NOWHERE), is_special=place is None)


def place_decoded(tokenizer: Tokenizer, token_ids: Items[int]) -> PlacedTokens:
    """Decodes tokens; each stands where the text goes on when it is added.

    The parts of a character are nowhere but for the last, which is all of it. So is what the
    decoder writes otherwise once other tokens follow.
    """
    text = tokenizer.decode(list(token_ids))
    spans, end = [], 0
    for number, token in enumerate(token_ids, 1):
        start = end
        end = max(end, _count_common(tokenizer.decode(list(token_ids[:number])), text))
        begin = start + len(text[start:end]) - len(text[start:end].lstrip())
        spans.append(
            TokenSpan(token, tokenizer.entry(token), begin, end, tokenizer.is_special(token))
        )
    return PlacedTokens(text, spans)


def _count_common(text: str, other: str) -> int:
    """Characters at the beginning that are the same."""
    for index, (one, another) in enumerate(zip(text, other, strict=False)):
        if one != another:
            return index
    return min(len(text), len(other))
