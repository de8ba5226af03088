"""Sparse vectors: of a vector with an entry for each entry of the vocabulary, those that count."""

import dataclasses
from collections.abc import Sequence as Items
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """The entries above zero of a vector [V]; it holds no others in memory."""

    indices: NDArray[np.int32]
    """Which they are, ascending, [N]."""
    values: NDArray[np.float32]
    """[N]"""

    @classmethod
    def from_dense(cls, vector: NDArray[np.float32]) -> Self:
        """The entries above zero of a vector [V]."""
        (indices,) = np.nonzero(vector > 0)
        return cls(indices.astype(np.int32), vector[indices])

    @classmethod
    def merge(cls, vectors: Items[Self]) -> Self:
        """The largest value that any of the vectors has at each index."""
        indices = np.concatenate([vector.indices for vector in vectors])
        values = np.concatenate([vector.values for vector in vectors])
        order = np.lexsort((-values, indices))  # by index, the largest first
        ordered = indices[order]
        is_first = np.diff(ordered, prepend=np.int32(-1)) > 0
        return cls(ordered[is_first], values[order][is_first])

    def keep_largest(self, count: int) -> "SparseVector":
        """The largest values, at most so many; of equal ones those of the smaller indices.

        Source: ``select_max_active_dims`` of ``sentence-transformers``, which leaves open which of
        equal ones are kept.
        """
        if len(self.values) <= count:
            return self
        order = np.argsort(-self.values, kind="stable")[:count]
        order.sort()
        return SparseVector(self.indices[order], self.values[order])
