"""Words as pictures: letters of five by seven pixels, set and printed badly on purpose.

The letterforms are those of dot matrix displays. Each column is a number whose lowest bit is the
top pixel.
"""

import random

from seqserve_export.variants.image_encoder import NUM_PIXELS, NUM_SPECIAL_TOKENS

LETTERS: dict[str, bytes] = {
    "'": bytes.fromhex("0005030000"),
    "a": bytes.fromhex("2054545478"),
    "b": bytes.fromhex("7f48444438"),
    "c": bytes.fromhex("3844444420"),
    "d": bytes.fromhex("384444487f"),
    "e": bytes.fromhex("3854545418"),
    "f": bytes.fromhex("087e090102"),
    "g": bytes.fromhex("0c5252523e"),
    "h": bytes.fromhex("7f08040478"),
    "i": bytes.fromhex("00447d4000"),
    "j": bytes.fromhex("2040443d00"),
    "k": bytes.fromhex("7f10284400"),
    "l": bytes.fromhex("00417f4000"),
    "m": bytes.fromhex("7c04180478"),
    "n": bytes.fromhex("7c08040478"),
    "o": bytes.fromhex("3844444438"),
    "p": bytes.fromhex("7c14141408"),
    "q": bytes.fromhex("081414187c"),
    "r": bytes.fromhex("7c08040408"),
    "s": bytes.fromhex("4854545420"),
    "t": bytes.fromhex("043f444020"),
    "u": bytes.fromhex("3c4040207c"),
    "v": bytes.fromhex("1c2040201c"),
    "w": bytes.fromhex("3c4030403c"),
    "x": bytes.fromhex("4428102844"),
    "y": bytes.fromhex("0c5050503c"),
    "z": bytes.fromhex("4464544c44"),
}
_LETTER_ROWS = 7
MAX_COLUMNS = 160
_MAX_GAP = 2
"""Columns between two letters."""
_WIDENED_RATE = 0.2
"""Share of columns that are printed twice."""
_FLIPPED_RATE = 0.01
"""Share of pixels that are not what they should be."""


def render(word: str, generator: random.Random) -> list[int]:
    """Renders a word: each column of pixels as a number.

    How far down it stands, the gaps between letters, wide columns and wrong pixels are drawn.

    Raises:
        ValueError: A character has no letterform, or the word is too long.
    """
    if unknown := sorted(set(word) - set(LETTERS)):
        raise ValueError(
            f"{''.join(unknown)!r} cannot be rendered; letterforms are there for a to z and '"
        )
    drop = generator.randint(0, NUM_PIXELS - _LETTER_ROWS)
    columns: list[int] = []
    for letter in word:
        columns += [0] * generator.randint(int(bool(columns)), _MAX_GAP)
        for column in LETTERS[letter]:
            columns += [column << drop] * (1 + (generator.random() < _WIDENED_RATE))
    if len(columns) > MAX_COLUMNS:
        raise ValueError(
            f"{word!r} takes {len(columns)} columns of pixels, but may take {MAX_COLUMNS}"
        )
    return [column ^ _draw_noise(generator) for column in columns]


def to_tokens(columns: list[int]) -> list[int]:
    """The source tokens of an image."""
    return [NUM_SPECIAL_TOKENS + column for column in columns]


def to_text(columns: list[int]) -> str:
    """The columns as the tokenizer of the model reads them: three hexadecimal digits each."""
    return " ".join(f"{column:03x}" for column in columns)


def draw(columns: list[int]) -> str:
    """The picture for a terminal, a line for each row of pixels."""
    return "\n".join(
        "".join("#" if column >> row & 1 else "." for column in columns)
        for row in range(NUM_PIXELS)
    )


def _draw_noise(generator: random.Random) -> int:
    return sum((generator.random() < _FLIPPED_RATE) << row for row in range(NUM_PIXELS))
