"""The key-value cache of a running batch: one row per live hypothesis.

Rows are dense: a step over B rows binds ``[:B]`` of every tensor, without a copy. Each row has its
own valid length; what lies beyond is stale and never read. Capacities start small and double, so
memory follows the longest text seen, not the longest allowed.
"""

from collections.abc import Sequence as Rows
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from seqserve.sequence import RowCopy

_FIRST_CAPACITY = 64


class KeyValueCache:
    """Self-attention (target) and cross-attention (source) keys and values of all rows.

    ``target`` is [2L, R, H, P, D] and ``source`` is [2L, R, H, S, D]; entry ``2 * layer`` of the
    first axis holds keys, the next one values. Worker thread only.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_heads: int,
        head_size: int,
        max_rows: int,
        max_target_length: int,
        max_source_length: int,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._max_target_length = max_target_length
        self._max_source_length = max_source_length
        self._dtype = dtype
        self._shape = (2 * num_layers, max_rows, num_heads, head_size)
        # The operator takes a capacity of 1 for a prompt, hence 2 at least.
        self.target = self._allocate(max(2, min(_FIRST_CAPACITY, max_target_length)))
        self.source = self._allocate(min(_FIRST_CAPACITY, max_source_length))
        self.generation = 0
        """Grows when an array was replaced: what is bound to the old one is out of date."""

    def reserve(self, *, target_length: int = 0, source_length: int = 0, num_rows: int) -> None:
        """Makes room for the given lengths, keeping the first ``num_rows`` rows."""
        self.target = self._grow(self.target, target_length, self._max_target_length, num_rows)
        self.source = self._grow(self.source, source_length, self._max_source_length, num_rows)

    def copy_rows(self, copies: Rows[RowCopy]) -> None:
        """Copies the valid prefixes of rows, all at once: sources are read before any write."""
        if not copies:
            return
        sources = [copy.source for copy in copies]
        targets = [copy.target for copy in copies]
        length = max(copy.target_length for copy in copies)
        self.target[:, targets, :, :length] = self.target[:, sources, :, :length]
        moved = [copy for copy in copies if copy.source_length]
        if moved:
            sources = [copy.source for copy in moved]
            targets = [copy.target for copy in moved]
            length = max(copy.source_length for copy in moved)
            self.source[:, targets, :, :length] = self.source[:, sources, :, :length]

    def write_source(
        self, rows: Rows[int], layers: Rows[NDArray[Any]], index: int, length: int
    ) -> None:
        """Writes the encoder's output for one sequence to each of its rows.

        Args:
            rows: One row per hypothesis.
            layers: Keys and values of every layer in turn, each [B, H, S, D].
            index: The sequence's row in ``layers``.
            length: Its valid source length.
        """
        for position, tensor in enumerate(layers):
            self.source[position, rows, :, :length] = tensor[index, :, :length]

    def _allocate(self, capacity: int) -> NDArray[Any]:
        num_tensors, max_rows, num_heads, head_size = self._shape
        return np.zeros((num_tensors, max_rows, num_heads, capacity, head_size), self._dtype)

    def _grow(self, array: NDArray[Any], length: int, limit: int, num_rows: int) -> NDArray[Any]:
        capacity = array.shape[3]
        if length <= capacity:
            return array
        while capacity < length:
            capacity = min(2 * capacity, max(limit, length))
        grown = self._allocate(capacity)
        grown[:, :num_rows, :, : array.shape[3]] = array[:, :num_rows]
        self.generation += 1
        return grown
