"""Tokens as labels of a picture: clean, short, and each in the direction of its own script.

Direction is told by isolates, characters which bracket a text that runs from right to left. The
attribute ``direction`` would also turn around which end of a text is anchored, in browsers only.

Source: Unicode Standard Annex 9, section 2.4.
"""

import unicodedata
from xml.sax.saxutils import escape

_MAX_COLUMNS = 24
"""Of what is drawn of a token; all of it stands in the title of its cells."""
_COLUMN = 0.61
"""Width of a character of a monospaced font, as a share of its size."""
_RIGHT_TO_LEFT = ("R", "AL")
_STRONG = ("L", *_RIGHT_TO_LEFT)
_BEGIN_ISOLATE, _END_ISOLATE = "\u2067", "\u2069"


def to_label(text: str) -> str:
    """A text as XML, shortened if it is too wide."""
    if _count_columns(text) > _MAX_COLUMNS:
        while _count_columns(text) >= _MAX_COLUMNS:
            text = text[:-1]
        text += "…"
    return to_title(text)


def to_title(text: str) -> str:
    """A text as XML, which has no place for control characters."""
    clean = escape("".join(one if one.isprintable() else "·" for one in text))
    strong = (kind for one in text if (kind := unicodedata.bidirectional(one)) in _STRONG)
    if next(strong, "L") in _RIGHT_TO_LEFT:
        return f"{_BEGIN_ISOLATE}{clean}{_END_ISOLATE}"
    return clean


def width_of(text: str, font_size: float) -> float:
    """How wide a label is, in pixels."""
    return min(_count_columns(text), _MAX_COLUMNS) * _COLUMN * font_size


def _count_columns(text: str) -> int:
    """Characters; those as wide as high count twice, and those that sit on others not at all."""
    return sum(
        2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
        if not unicodedata.combining(one)
    )
