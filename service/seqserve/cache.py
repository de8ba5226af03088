"""The key-value cache of a running batch: one row per live hypothesis.

Rows are dense: a step over B rows binds ``[:B]`` of every tensor, without a copy. Each row has its
own valid length; what lies beyond is stale and never read. How many rows and positions there are is
decided by the scheduler, which keeps within the budget: see :mod:`seqserve.cache_budget`.
"""

import math
import mmap
from collections.abc import Sequence as Rows
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from seqserve.batch import RowCopy
from seqserve.cache_budget import NOTHING, CacheBudget, CacheResize

Tensor = NDArray[Any]
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class KeyValueCache:
    """Self-attention (target) and cross-attention (source) keys and values of all rows.

    ``target`` holds 2L tensors [R, H, P, D] and ``source`` as many [R, H, S, D]; entry
    ``2 * layer`` holds keys, the next one values. It starts without rows. Worker thread only.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_heads: int,
        head_size: int,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._num_tensors = 2 * num_layers
        self._num_heads = num_heads
        self._head_size = head_size
        self._dtype = dtype
        self.extent = NOTHING
        """Rows and positions there are."""
        self.target = [self._allocate(0, 0) for _ in range(self._num_tensors)]
        self.source = [self._allocate(0, 0) for _ in range(self._num_tensors)]
        self.generation = 0
        """Grows when an array was replaced: what is bound to the old one is out of date."""

    def budget(self, max_bytes: int, max_rows: int) -> CacheBudget:
        """What the rows of this cache cost."""
        position_bytes = self._num_tensors * self._num_heads * self._head_size
        position_bytes *= np.dtype(self._dtype).itemsize
        return CacheBudget(
            max_bytes=max_bytes,
            max_rows=max_rows,
            target_position_bytes=position_bytes,
            source_position_bytes=position_bytes,
            num_tensors=self._num_tensors,
        )

    def resize(self, change: CacheResize) -> None:
        """Replaces the arrays whose size changes, one at a time, those that shrink first.

        So the bytes of old and new arrays together stay within what the budget counts for the
        larger of both extents. Nothing else may hold the old arrays.
        """
        extent, kept = change
        self.extent = NOTHING  # if memory runs out half-way
        self.generation += 1
        target_shape = (extent.num_rows, extent.target_length)
        source_shape = (extent.num_rows, extent.source_length)
        sides = [
            (self.target, target_shape, kept.target_length),
            (self.source, source_shape, kept.source_length),
        ]
        sides.sort(key=_growth)
        for tensors, shape, length in sides:
            for position in range(self._num_tensors):
                if _rows_and_positions(tensors[position]) != shape:
                    tensor = self._allocate(*shape)
                    tensor[: kept.num_rows, :, :length] = tensors[position][
                        : kept.num_rows, :, :length
                    ]
                    tensors[position] = tensor
        self.extent = extent

    def release(self) -> None:
        """Gives all memory back."""
        self.resize(CacheResize(NOTHING, NOTHING))

    def copy_rows(self, copies: Rows[RowCopy]) -> None:
        """Copies the valid prefixes of rows, all at once: sources are read before any write."""
        if not copies:
            return
        spans = [slice(copy.first_position, copy.target_length) for copy in copies]
        for tensor in self.target:
            read = [
                tensor[copy.source, :, span].copy()
                for copy, span in zip(copies, spans, strict=True)
            ]
            for copy, span, values in zip(copies, spans, read, strict=True):
                tensor[copy.target, :, span] = values
        moved = [copy for copy in copies if copy.source_length]
        if moved:
            sources = [copy.source for copy in moved]
            targets = [copy.target for copy in moved]
            length = max(copy.source_length for copy in moved)
            for tensor in self.source:
                tensor[targets, :, :length] = tensor[sources, :, :length]

    def write_source(self, rows: Rows[int], layers: Rows[Tensor], index: int, length: int) -> None:
        """Writes the encoder's output for one sequence to each of its rows.

        Args:
            rows: One row per hypothesis.
            layers: Keys and values of every layer in turn, each [B, H, S, D].
            index: The sequence's row in ``layers``.
            length: Its valid source length.
        """
        for tensor, layer in zip(self.source, layers, strict=True):
            tensor[rows, :, :length] = layer[index, :, :length]

    def _allocate(self, num_rows: int, length: int) -> Tensor:
        shape = (num_rows, self._num_heads, length, self._head_size)
        num_bytes = math.prod(shape) * np.dtype(self._dtype).itemsize
        if not num_bytes:
            return np.zeros(shape, self._dtype)
        # Mapped by hand, since memory then comes as it is written, a page at a time: what no row
        # has reached takes none. numpy asks for pages of 2 MB, which would all be touched.
        return np.frombuffer(mmap.mmap(-1, num_bytes, flags=_PRIVATE), self._dtype).reshape(shape)


def _rows_and_positions(tensor: Tensor) -> tuple[int, int]:
    return tensor.shape[0], tensor.shape[2]


def _growth(side: tuple[list[Tensor], tuple[int, int], int]) -> int:
    """Rows times positions that a side gains."""
    tensors, (num_rows, length), _ = side
    old_rows, old_length = _rows_and_positions(tensors[0])
    return num_rows * length - old_rows * old_length
