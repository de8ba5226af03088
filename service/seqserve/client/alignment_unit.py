"""The words or characters of a text that tokens stand for."""

import re
from collections.abc import Iterator
from collections.abc import Sequence as Items
from typing import Literal

from seqserve.client.results import Token

Unit = Literal["words", "characters"]

_UNITS = {"words": re.compile(r"\S+"), "characters": re.compile(r"\S")}


def split_units(text: str, unit: Unit) -> list[tuple[int, int]]:
    """The places of words between white space, or of all characters but that."""
    return [match.span() for match in _UNITS[unit].finditer(text)]


def number_units(
    tokens: Items[Token], spans: Items[tuple[int, int]], unit: Unit
) -> list[list[int]]:
    """The numbers of the units of each token; none of special ones, and those that stand nowhere.

    A token is of the word that it ends in, since pieces may begin with the space before it; and of
    all characters that it has.
    """
    return [[] if token.is_special else list(_find(token, spans, unit)) for token in tokens]


def _find(token: Token, spans: Items[tuple[int, int]], unit: Unit) -> Iterator[int]:
    first = token.end_offset - 1 if unit == "words" else token.start_offset
    for number, (start, end) in enumerate(spans):
        if token.start_offset < token.end_offset and start < token.end_offset and first < end:
            yield number
