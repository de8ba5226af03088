"""Reductions of weights of attention, on matrices that can be checked by eye."""

import numpy as np
import pytest

from seqserve.attention_reduction import Reduction, reduce_weights, size_of

LAYERS = [
    np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]], np.float32),
    np.array([[[0.2, 0.8], [0.4, 0.6]], [[0.6, 0.4], [0.0, 1.0]]], np.float32),
]
"""Two layers of two heads: [N, R, C] each."""


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (
            Reduction.NONE,
            [
                [[[1, 0], [0.5, 0.5]], [[0, 1], [0.5, 0.5]]],
                [[[0.2, 0.8], [0.4, 0.6]], [[0.6, 0.4], [0, 1]]],
            ],
        ),
        (Reduction.MEAN_HEADS, [[[[0.5, 0.5], [0.5, 0.5]]], [[[0.4, 0.6], [0.2, 0.8]]]]),
        (Reduction.MEAN, [[[[0.45, 0.55], [0.35, 0.65]]]]),
        (Reduction.MAX, [[[[1.0, 1.0], [0.5, 1.0]]]]),
        # [[.7, .3], [.1, .9]] @ [[.75, .25], [.25, .75]]
        (Reduction.ROLLOUT, [[[[0.6, 0.4], [0.3, 0.7]]]]),
    ],
)
def test_reductions(reduction: Reduction, expected: list[object]) -> None:
    """Four dimensions are left, and as many matrices as were announced."""
    reduced = reduce_weights(LAYERS, reduction)
    assert reduced == pytest.approx(np.array(expected), abs=1e-6)
    assert reduced.dtype == np.float32
    assert reduced.shape[0] * reduced.shape[1] == size_of(2, 2, reduction)


@pytest.mark.parametrize("reduction", set(Reduction) - {Reduction.MAX})
def test_rows_still_sum_to_one(reduction: Reduction) -> None:
    """Of random weights; the largest of several sum to more."""
    scores = np.random.default_rng(3).normal(size=(3, 4, 5, 5)).astype(np.float32)
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    assert reduce_weights(list(weights), reduction).sum(axis=-1) == pytest.approx(1.0, abs=1e-5)
