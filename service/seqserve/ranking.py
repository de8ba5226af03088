"""Vocabulary-sized arithmetic on one row of logits [V]: what decoding spends its own time on.

Each row is computed by itself, so that its bits never depend on the rows beside it.
"""

import numpy as np
from numpy.typing import NDArray

_NUM_PARTS = 64
"""Parts a row is cut into. Maxima are taken across the parts, a vector at a time."""


def log_sum_exp(logits: NDArray[np.float32]) -> float:
    """The logarithm of the sum of exponentials: what turns logits into log-probabilities.

    NaN if any of them is NaN or plus infinity.
    """
    largest = logits.max()
    with np.errstate(invalid="ignore"):  # infinities become NaN
        shifted = logits - largest
        np.exp(shifted, out=shifted)
        return float(largest + np.log(shifted.sum()))


def largest_indices(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The indices of the largest values, best first; of equal ones the lower index comes first.

    Args:
        values: [V], not NaN.
        count: How many; all, if there are fewer.

    Returns:
        Indices [count]. The ``count`` largest maxima of groups bound the ``count``-th largest
        value from below, so that all but a few groups need not be looked at.
    """
    num_groups = len(values) // _NUM_PARTS
    if num_groups <= 2 * count:
        return _best_of(values, np.arange(len(values)), count)
    # Group g holds the values g, g + G, g + 2G and so on; the rest is a group of its own.
    body = values[: num_groups * _NUM_PARTS].reshape(_NUM_PARTS, num_groups)
    maxima = body.max(axis=0)
    bound = np.partition(maxima, -count)[-count]
    groups = np.flatnonzero(maxima >= bound)
    indices = (groups + num_groups * np.arange(_NUM_PARTS)[:, None]).ravel()
    indices = np.concatenate([indices, np.arange(body.size, len(values))])
    return _best_of(values, indices[values[indices] >= bound], count)


def _best_of(
    values: NDArray[np.float32], indices: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    order = np.lexsort((indices, -values[indices]))[:count]
    return indices[order]
