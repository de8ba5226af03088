"""Vocabulary-sized arithmetic on one row of logits [V]: what decoding spends its own time on.

Each row is computed by itself, so that its bits never depend on the rows beside it.

A row is cut into 64 parts, and position g of all parts is group g: it holds the values g, g + G,
g + 2G and so on, where G is the length of a part. Maxima of groups are taken a vector at a time.
What is left over at the end, fewer than 64 values, belongs to no group.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_NUM_PARTS = 64


def log_sum_exp(logits: Floats) -> float:
    """The logarithm of the sum of exponentials: what turns logits into log-probabilities.

    NaN if any of them is NaN or plus infinity.
    """
    largest = logits.max()
    with np.errstate(invalid="ignore"):  # infinities become NaN
        shifted = logits - largest
        np.exp(shifted, out=shifted)
        return float(largest + np.log(shifted.sum()))


def largest_indices(values: NDArray[np.floating[Any]], count: int) -> NDArray[np.int64]:
    """The indices of the largest values, best first; of equal ones the lower index comes first.

    Args:
        values: [V], not NaN.
        count: How many; all, if there are fewer.

    Returns:
        Indices [count].
    """
    num_groups = len(values) // _NUM_PARTS
    if num_groups <= 2 * count:
        return _best_of(values, np.arange(len(values)), count)
    # The ``count`` largest maxima bound the ``count``-th largest value from below: only groups that
    # reach it can hold one of the largest values.
    maxima = values[: num_groups * _NUM_PARTS].reshape(_NUM_PARTS, num_groups).max(axis=0)
    bound = np.partition(maxima, -count)[-count]
    groups = np.flatnonzero(maxima >= bound)
    indices = (groups + num_groups * np.arange(_NUM_PARTS)[:, None]).ravel()
    indices = np.concatenate([indices, np.arange(num_groups * _NUM_PARTS, len(values))])
    return _best_of(values, indices[values[indices] >= bound], count)


def rank_rows(logits: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    """The most probable tokens of each row and their log-probabilities, best first.

    Args:
        logits: [N, V].
        count: How many; all, if there are fewer.

    Returns:
        Tokens and log-probabilities [N, count]; the latter are NaN for a row with a logit that is
        NaN or plus infinity, or with none above minus infinity.
    """
    count = min(count, logits.shape[1])
    tokens = np.zeros((len(logits), count), np.int64)
    log_probabilities = np.full((len(logits), count), math.nan, np.float32)
    for row, values in enumerate(logits):
        normalizer = log_sum_exp(values)
        if not math.isnan(normalizer):
            tokens[row] = largest_indices(values, count)
            log_probabilities[row] = values[tokens[row]] - np.float32(normalizer)
    return tokens, log_probabilities


def _best_of(
    values: NDArray[np.floating[Any]], indices: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    order = np.lexsort((indices, -values[indices]))[:count]
    return indices[order]
