"""Vocabulary-sized arithmetic on one row of logits [V]: what decoding spends its own time on.

Each row is computed by itself, so that its bits never depend on the rows beside it.

A row is cut into 64 parts, and position g of all parts is group g: it holds the values g, g + G,
g + 2G and so on, where G is the length of a part. Maxima of groups are taken a vector at a time.
What is left over at the end, fewer than 64 values, belongs to no group.
"""

import math
from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_NUM_PARTS = 64


def log_sum_exp(logits: Floats) -> float:
    """The logarithm of the sum of exponentials: what turns logits into log-probabilities.

    NaN if any of them is NaN or plus infinity.
    """
    return _log_sum_exp(logits, logits.max())


def largest_indices(values: Floats, count: int) -> NDArray[np.int64]:
    """The indices of the largest values, best first; of equal ones the lower index comes first.

    Args:
        values: [V], not NaN.
        count: How many; all, if there are fewer.

    Returns:
        Indices [count].
    """
    return _find_largest(values, _group_maxima(values), count)


def rank(
    logits: Floats, count: int, barred: Items[int] = ()
) -> tuple[NDArray[np.int64], Floats] | None:
    """The most probable tokens and their log-probabilities, best first.

    Args:
        logits: [V]; barred tokens are struck out in place.
        count: How many; all, if there are fewer.
        barred: Tokens that count for the sum of probabilities, and otherwise not.

    Returns:
        Tokens and log-probabilities [count], those of barred tokens minus infinity; or None if a
        logit is NaN or plus infinity.
    """
    maxima = _group_maxima(logits)
    rest = logits[maxima.size * _NUM_PARTS :]
    largest = np.float32(max(maxima.max(initial=-math.inf), rest.max(initial=-math.inf)))
    normalizer = _log_sum_exp(logits, largest)
    if math.isnan(normalizer):
        return None
    for token in barred:
        logits[token] = -math.inf
        if token < maxima.size * _NUM_PARTS:
            group = token % maxima.size
            maxima[group] = logits[group : maxima.size * _NUM_PARTS : maxima.size].max()
    tokens = _find_largest(logits, maxima, count)
    return tokens, logits[tokens] - np.float32(normalizer)


def _log_sum_exp(logits: Floats, largest: np.float32) -> float:
    with np.errstate(invalid="ignore"):  # infinities become NaN
        shifted = logits - largest
        np.exp(shifted, out=shifted)
        return float(largest + np.log(shifted.sum()))


def _group_maxima(values: Floats) -> Floats:
    """The largest value of each group, [G]."""
    num_groups = len(values) // _NUM_PARTS
    maxima: Floats = values[: num_groups * _NUM_PARTS].reshape(_NUM_PARTS, num_groups).max(axis=0)
    return maxima


def _find_largest(values: Floats, maxima: Floats, count: int) -> NDArray[np.int64]:
    """Looks only at groups that can hold one of the largest values.

    The ``count`` largest maxima bound the ``count``-th largest value from below.
    """
    num_groups = maxima.size
    if num_groups <= 2 * count:
        return _best_of(values, np.arange(len(values)), count)
    bound = np.partition(maxima, -count)[-count]
    groups = np.flatnonzero(maxima >= bound)
    indices = (groups + num_groups * np.arange(_NUM_PARTS)[:, None]).ravel()
    indices = np.concatenate([indices, np.arange(num_groups * _NUM_PARTS, len(values))])
    return _best_of(values, indices[values[indices] >= bound], count)


def _best_of(values: Floats, indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    order = np.lexsort((indices, -values[indices]))[:count]
    return indices[order]
