"""Arithmetic over the vocabulary, against the plain way to say it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.ranking import largest_indices, log_sum_exp, rank_rows


@given(
    st.integers(1, 3000),
    st.integers(1, 32),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 3, 1000]),
)
def test_largest_indices_are_those_of_a_stable_sort(
    size: int, count: int, seed: int, num_distinct: int
) -> None:
    """With many ties, few and none; barred values and rows shorter than asked for included."""
    generator = np.random.default_rng(seed)
    values = generator.integers(0, num_distinct, size).astype(np.float32)
    values[generator.random(size) < 0.2] = -math.inf
    found = largest_indices(values, count)
    expected = np.argsort(-values, kind="stable")[:count]
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("size", [58_101, 64 * 33, 64 * 33 + 63])
def test_largest_indices_in_every_place(size: int) -> None:
    """A largest value is found wherever it stands, at the ragged end, too."""
    generator = np.random.default_rng(1)
    values = generator.standard_normal(size).astype(np.float32)
    for place in (0, 1, size // 64 - 1, size // 64, size - 64, size - 1):
        raised = values.copy()
        raised[place] = 100.0
        assert largest_indices(raised, 8)[0] == place
        assert set(largest_indices(raised, 8)) == set(np.argsort(-raised)[:8])


@given(st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=200))
def test_log_sum_exp_is_that_of_float64(values: list[float]) -> None:
    """In float32 it is as exact as float32 allows, without overflow for large logits."""
    logits = np.array(values, np.float32)
    exact = logits.astype(np.float64)
    expected = exact.max() + np.log(np.exp(exact - exact.max()).sum())
    assert log_sum_exp(logits) == pytest.approx(expected, rel=1e-6, abs=1e-5)
    assert math.isfinite(log_sum_exp(logits * np.float32(1e30)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_log_sum_exp_of_what_is_not_finite_is_nan(bad: float) -> None:
    """So that one look shows that a row cannot be used."""
    assert math.isnan(log_sum_exp(np.array([0.0, bad, 1.0], np.float32)))
    assert math.isnan(log_sum_exp(np.full(3, -math.inf, np.float32)))


def test_log_sum_exp_leaves_out_what_is_barred() -> None:
    """Minus infinity adds nothing."""
    logits = np.array([0.0, -math.inf, 0.0], np.float32)
    assert log_sum_exp(logits) == pytest.approx(math.log(2))


@given(st.integers(1, 3000), st.integers(1, 32), st.integers(0, 2**32 - 1))
def test_rank_rows_is_a_sort_of_log_probabilities(size: int, count: int, seed: int) -> None:
    """Each row by itself, equal logits in their order."""
    generator = np.random.default_rng(seed)
    logits = generator.integers(-5, 5, (3, size)).astype(np.float32)
    tokens, log_probabilities = rank_rows(logits, count)
    for row, values in enumerate(logits):
        best = np.argsort(-values, kind="stable")[:count]
        assert tokens[row].tolist() == best.tolist()
        expected = values[best] - np.float32(log_sum_exp(values))
        assert log_probabilities[row].tolist() == expected.tolist()


@pytest.mark.parametrize("place", [0, 63, 64 * 40, 64 * 40 + 5])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rank_rows_marks_what_is_not_finite(place: int, bad: float) -> None:
    """In a group and in the rest at the end; the rows beside it are ranked."""
    logits = np.zeros((3, 64 * 40 + 6), np.float32)
    logits[1, place] = bad
    _, log_probabilities = rank_rows(logits, 4)
    assert np.isnan(log_probabilities).all(axis=1).tolist() == [False, True, False]


def test_rank_rows_marks_a_row_without_tokens() -> None:
    """Minus infinity everywhere is no distribution."""
    logits = np.full((1, 70), -math.inf, np.float32)
    assert np.isnan(rank_rows(logits, 2)[1]).all()
