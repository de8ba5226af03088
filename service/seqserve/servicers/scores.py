"""Logits to scores. In float64, so that what adds up to 1 does so to the last digits of float32."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from seqserve.ranking import largest_indices

ScoreFunction = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""What makes scores of logits."""


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities that add up to 1 along the last axis, [..., V]."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of each by itself. Written so that no power overflows."""
    powers = np.exp(-np.abs(logits.astype(np.float64)))
    return np.where(logits >= 0, 1.0, powers) / (1.0 + powers)


def identity(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The logits."""
    return logits.astype(np.float64)


def best_first(scores: NDArray[np.float64], count: int) -> list[int]:
    """Where the largest scores [V] are, the largest first; of equal ones the first."""
    return [int(index) for index in largest_indices(scores, count)]
