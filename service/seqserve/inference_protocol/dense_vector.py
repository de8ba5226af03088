"""Sparse embeddings as tensors: with their zeros, since a tensor has a place for each entry."""

from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import ArrayLike, NDArray


def to_dense(
    values: ArrayLike, indices: Items[int] | NDArray[np.int32] | None, size: int
) -> NDArray[np.float32]:
    """A vector [M] of some size.

    Args:
        values: Its numbers; of a sparse embedding those above zero.
        indices: Where they stand; None where all are given.
        size: The numbers it has in all.
    """
    if indices is None:
        return np.asarray(values, np.float32)
    vector = np.zeros(size, np.float32)
    vector[np.asarray(indices, np.int64)] = np.asarray(values, np.float32)
    return vector
