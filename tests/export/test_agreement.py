"""How answers are measured by those of the original.

The invariant: the original agrees with itself entirely and without near ties; no case is left out;
and what is not finite agrees with nothing.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqserve_export.agreement import (
    LEAST_COSINE,
    LEAST_SHARE,
    MASK_SLACK,
    SCORE_SLACK,
    Choices,
    Cosines,
    LabelSets,
    Orders,
    Yardstick,
)
from seqserve_export.onnx_runner import Floats

NUM_ROWS, NUM_LABELS = 20, 5

MakeYardstick = Callable[[list[Floats]], Yardstick]
YARDSTICKS: dict[str, MakeYardstick] = {
    "cosines": lambda rows: Cosines(row[0] for row in rows),
    "choices": lambda rows: Choices(rows, "same"),
    "label sets": LabelSets,
    "orders": Orders,
}
COUNTS = {
    "cosines": NUM_ROWS,
    "choices": NUM_ROWS,
    "label sets": NUM_ROWS,
    "orders": NUM_ROWS * (NUM_ROWS - 1) // 2 * NUM_LABELS,
}


def make_rows(seed: int, scale: float = 1.0) -> list[Floats]:
    """Normal answers, [1, V] each."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(0, scale, (NUM_ROWS, 1, NUM_LABELS)).astype(np.float32)
    return list(rows)


def shape(name: str, rows: list[Floats]) -> list[Floats]:
    """Answers as a yardstick takes them."""
    return [row[0] for row in rows] if name == "cosines" else rows


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1e-3, 1.0, 1e3]))
@pytest.mark.parametrize("name", YARDSTICKS)
def test_the_original_agrees_with_itself(name: str, seed: int, scale: float) -> None:
    """Every case counts, all agree, and none of them for being a near tie."""
    rows = make_rows(seed, scale)
    agreement = YARDSTICKS[name](rows).measure(shape(name, rows))
    assert agreement.count == COUNTS[name]
    assert agreement.value == pytest.approx(1, abs=1e-6)
    assert agreement.num_near_ties == 0
    assert agreement.is_enough


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), noise=st.sampled_from([1e-3, 1e-2, 0.1, 1.0]))
@pytest.mark.parametrize("name", YARDSTICKS)
def test_values_are_shares_whatever_is_answered(name: str, seed: int, noise: float) -> None:
    """The count is that of the original's cases, and near ties are among those that agree."""
    rows, others = make_rows(seed), make_rows(seed + 1)
    mixed = [(1 - noise) * row + noise * other for row, other in zip(rows, others, strict=True)]
    agreement = YARDSTICKS[name](rows).measure(shape(name, mixed))
    assert agreement.count == COUNTS[name]
    assert -1 <= agreement.value <= 1
    assert 0 <= agreement.num_near_ties <= round(max(0, agreement.value) * agreement.count)
    assert agreement.is_enough == (agreement.value >= agreement.threshold)


@pytest.mark.parametrize("name", YARDSTICKS)
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_agrees_with_nothing(name: str, wrong: float) -> None:
    """Not even where it compares as the right number would."""
    rows = make_rows(1)
    answers = [row.copy() for row in rows]
    answers[3][:] = wrong
    agreement = YARDSTICKS[name](rows).measure(shape(name, answers))
    assert not agreement.is_enough


@pytest.mark.parametrize("name", YARDSTICKS)
def test_answers_must_be_complete(name: str) -> None:
    """A row without an answer is a bug, not an agreement."""
    rows = make_rows(1)
    with pytest.raises((ValueError, IndexError), match=r"zip\(\)|broadcast|index"):
        YARDSTICKS[name](rows).measure(shape(name, rows[:-1]))


def test_the_lowest_cosine_counts() -> None:
    """One lost text among a thousand fails; the mean would hide it."""
    rows = [np.array([1, 0], np.float32)] * 1000
    lost = [*rows[1:], np.array([0.9, 0.5], np.float32)]
    agreement = Cosines(rows).measure(lost)
    assert agreement.value == pytest.approx(0.9 / math.hypot(0.9, 0.5))
    assert agreement.mean is not None
    assert agreement.mean > LEAST_COSINE > agreement.value
    assert not agreement.is_enough
    longer = [3 * row for row in rows]
    assert Cosines(rows).measure(longer).value == 1


def test_empty_embeddings_equal_each_other_alone() -> None:
    """No direction agrees with no direction."""
    zero, one = np.zeros(2, np.float32), np.ones(2, np.float32)
    assert Cosines([zero]).measure([zero]).value == 1
    assert Cosines([zero]).measure([one]).value == 0
    assert Cosines([one]).measure([zero]).value == 0


def test_shares_of_labels() -> None:
    """One other label of 200 is half a percent and just enough, two are not."""
    rows = [np.array([[1, 0]], np.float32)] * 200
    other = np.array([[0, 1]], np.float32)
    one = Choices(rows, "same best labels").measure([*rows[1:], other])
    assert (one.measure, one.count, one.value) == ("same best labels", 200, LEAST_SHARE)
    assert one.is_enough
    assert not Choices(rows, "same").measure([*rows[2:], other, other]).is_enough


def test_choices_within_the_slack_are_near_ties() -> None:
    """They agree and are counted; rounding is all the slack that labels have."""
    first, second = np.eye(2, dtype=np.float32)[:, None]
    tied, lost = np.array([[1, 0.9999]], np.float32), np.array([[1, 0.999]], np.float32)
    agreement = Choices([tied, lost], "same").measure([second, second])
    assert (agreement.value, agreement.num_near_ties) == (0.5, 1)
    assert Choices([tied], "same").measure([first]).num_near_ties == 0
    nearly, hardly = (np.log(np.array([[0.5, 0.5 * share]], np.float32)) for share in (0.91, 0.89))
    agreement = Choices([nearly, hardly], "same", MASK_SLACK).measure([second, second])
    assert (agreement.value, agreement.num_near_ties) == (0.5, 1)


def test_every_decision_of_a_row_counts() -> None:
    """Rows of tokens and of masks have several."""
    row = np.eye(3, dtype=np.float32)
    agreement = Choices([row, row[:1]], "same").measure([row[[0, 1, 0]], row[:1]])
    assert (agreement.count, agreement.value) == (4, 0.75)


def test_sets_of_labels_are_compared_as_a_whole() -> None:
    """One label more is another set, unless it stands exactly at one half."""
    rows = [np.array([[2, -2, 0.00005]], np.float32), np.array([[2, -2, -2]], np.float32)]
    one_more = [np.array([[2, -2, -1]], np.float32), np.array([[2, 1, -2]], np.float32)]
    agreement = LabelSets(rows).measure(one_more)
    assert (agreement.count, agreement.value, agreement.num_near_ties) == (2, 0.5, 1)


def test_only_rows_of_a_group_are_put_in_order() -> None:
    """What documents of another query score says nothing."""
    scores = [np.array([[score]], np.float32) for score in (0, 1, 0, 1)]
    shifted = [np.array([[score]], np.float32) for score in (0, 1, 5, 6)]
    groups = [np.array([0, 1]), np.array([2, 3])]
    grouped = Orders(scores, groups).measure(shifted)
    assert (grouped.count, grouped.value, grouped.num_near_ties) == (2, 1, 0)
    # Of all six pairs, 0 and 0, and 1 and 1, are no longer equal; 1 and 0 now are the other way.
    agreement = Orders(scores).measure(shifted)
    assert (agreement.count, agreement.value, agreement.num_near_ties) == (6, 5 / 6, 2)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_swaps_within_the_slack_are_near_ties(seed: int) -> None:
    """A shift of each score by less than half the slack changes no order that counts."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(0, 3, (40, 1, 1)).astype(np.float32)
    half = SCORE_SLACK * float(scores.std()) / 2.01
    shifted = scores + generator.uniform(-half, half, scores.shape).astype(np.float32)
    agreement = Orders(list(scores)).measure(list(shifted))
    assert agreement.value == 1
    swapped = np.sign(scores[:, None] - scores) != np.sign(shifted[:, None] - shifted)
    assert agreement.num_near_ties == swapped.sum() // 2
