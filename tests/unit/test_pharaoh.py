"""Alignments in Pharaoh format, by tokens and by words, and the weights of words."""

import dataclasses

import numpy as np
import pytest

from seqserve.client import Alignment, align_words, to_pharaoh
from seqserve.client.results import Token


def place(text: str, *spans: tuple[int, int] | None) -> tuple[Token, ...]:
    """Tokens at places of a text; None for special ones."""
    return tuple(
        Token(1, "</s>", 0, 0, True) if span is None else Token(7, text[slice(*span)], *span, False)
        for span in spans
    )


SOURCE, TARGET = "the cat sat", "die Katze saß"
ALIGNMENT = Alignment(
    source_tokens=place(SOURCE, None, (0, 3), (3, 5), (5, 7), (7, 11), None),
    target_tokens=place(TARGET, (0, 3), (4, 7), (7, 9), (9, 12), (12, 13), None),
    source_indices=(1, 2, 3, 4, 4, -1),
    weights=np.zeros((6, 6), np.float32),
)
"""Pieces with the space before their word, as SentencePiece has them, and without."""


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(None, "0-0 1-1 2-2 3-3 3-4"), ((SOURCE, TARGET), "0-0 1-1 2-2")],
)
def test_pairs_are_counted_from_zero_without_special_tokens(
    texts: tuple[str, str] | None, expected: str
) -> None:
    """Tokens, or the words that their last characters are of, each pair once."""
    assert to_pharaoh(ALIGNMENT, texts) == expected


def test_characters_are_those_of_the_tokens() -> None:
    """All but white space, which pieces may begin with, each with all of its source token."""
    one = Alignment(
        source_tokens=place("a bc", (0, 1), (1, 4)),
        target_tokens=place("x yz", (0, 1), (1, 3), (3, 4)),
        source_indices=(0, 1, 0),
        weights=np.zeros((3, 2), np.float32),
    )
    assert to_pharaoh(one, ("a bc", "x yz"), "characters") == "0-0 0-2 1-1 2-1"


def test_words_have_the_weights_of_their_tokens() -> None:
    """The sum over those of a source word, the mean over those of a target word."""
    weights = np.array(
        [
            [0.1, 0.6, 0.2, 0.1, 0.0, 0.0],
            [0.0, 0.1, 0.3, 0.4, 0.0, 0.2],
            [0.0, 0.1, 0.5, 0.2, 0.2, 0.0],
            [0.0, 0.0, 0.2, 0.0, 0.8, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.6, 0.4],
            [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        ],
        np.float32,
    )
    found = align_words(dataclasses.replace(ALIGNMENT, weights=weights), (SOURCE, TARGET + " !"))
    assert found.source_words == ("the", "cat", "sat")
    assert found.target_words == ("die", "Katze", "saß", "!")
    expected = [[0.6, 0.3, 0.0], [0.1, 0.7, 0.1], [0.0, 0.1, 0.7], [0.0, 0.0, 0.0]]
    assert found.weights == pytest.approx(np.array(expected))
    assert found.source_indices == (0, 1, 2, -1)


def test_what_came_from_nothing_is_left_out() -> None:
    """Special tokens, and those that have no place in the text."""
    one = Alignment(
        source_tokens=place("ab", None, (0, 2)),
        target_tokens=place("x", (0, 0), (0, 1), None),
        source_indices=(1, -1, 0),
        weights=np.zeros((3, 2), np.float32),
    )
    assert to_pharaoh(one, ("ab", "x")) == to_pharaoh(one, ("ab", "x"), "characters") == ""
    assert to_pharaoh(one) == "0-0"
