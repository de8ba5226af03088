"""Sparse vectors: what is kept of dense ones, of several, and of many entries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from seqserve.sparse_vector import SparseVector

DENSE = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.5]), min_size=6, max_size=6).map(
    lambda values: np.array(values, np.float32)
)


def to_dense(vector: SparseVector) -> np.ndarray:
    """The vector with its zeros."""
    dense = np.zeros(6, np.float32)
    dense[vector.indices] = vector.values
    return dense


@given(dense=DENSE)
def test_entries_above_zero_are_kept(dense: np.ndarray) -> None:
    """In ascending order, and none of the others, which would keep a batch in memory."""
    vector = SparseVector.from_dense(dense)
    assert np.array_equal(to_dense(vector), np.maximum(dense, 0))
    assert (np.diff(vector.indices) > 0).all()
    assert (vector.values > 0).all()
    assert vector.values.base is None


@given(dense=st.lists(DENSE, min_size=1, max_size=4))
def test_merging_takes_the_largest(dense: list[np.ndarray]) -> None:
    """At each index, of all vectors that have it."""
    vector = SparseVector.merge([SparseVector.from_dense(one) for one in dense])
    assert np.array_equal(to_dense(vector), np.maximum(np.max(dense, axis=0), 0))
    assert (np.diff(vector.indices) > 0).all()


@given(dense=DENSE, count=st.integers(1, 7))
def test_largest_are_kept(dense: np.ndarray, count: int) -> None:
    """Of equal ones the first, in the order of their indices."""
    whole = SparseVector.from_dense(dense)
    vector = whole.keep_largest(count)
    order = sorted(whole.indices.tolist(), key=lambda index: (-dense[index], index))[:count]
    assert vector.indices.tolist() == sorted(order)
    assert vector.values.tolist() == dense[sorted(order)].tolist()
