"""Logits to scores, without overflow."""

import numpy as np
import pytest

from seqserve.entity import Entity, keep_longest, to_group
from seqserve.servicers.scores import best_first, identity, sigmoid, softmax


@pytest.mark.filterwarnings("error")
def test_extreme_logits_do_not_overflow() -> None:
    """Nor warn: scores are 0, 1 and between."""
    logits = np.array([-3e38, -800.0, 0.0, 800.0, 3e38], np.float32)
    np.testing.assert_allclose(sigmoid(logits), [0, 0, 0.5, 1, 1], atol=1e-12)
    np.testing.assert_allclose(softmax(logits), [0, 0, 0, 0, 1], atol=1e-12)
    assert np.array_equal(identity(logits), logits)


def test_equal_scores_keep_their_order() -> None:
    """The first of equal ones comes first."""
    assert best_first(np.array([0.1, 0.5, 0.1, 0.5]), 3) == [1, 3, 0]


def test_longest_of_overlapping_entities_is_kept() -> None:
    """Of those as long, the one with the better score; neighbours do not overlap."""

    def make(start: int, end: int, score: float = 0.5) -> Entity:
        return Entity("PER", score, "", start, end)

    entities = [make(8, 9), make(0, 4), make(2, 8), make(3, 9, 0.6), make(9, 12)]
    assert keep_longest(entities) == [make(3, 9, 0.6), make(9, 12)]
    assert keep_longest([]) == []


def test_groups_are_named_without_their_first_part() -> None:
    """Whatever stands before the first hyphen."""
    assert [to_group(label) for label in ("B-PER", "I-a-b", "O")] == ["PER", "a-b", "O"]
