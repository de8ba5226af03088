"""The key-value cache of a running batch in the memory of a device.

What :mod:`seqserve.cache` is in the memory of the process, with the same rows. No tensor passes the
host: a graph that export writes moves rows, ``move_rows`` of the manifest, always whole ones. Its
input and its output are one buffer, so that it writes in place.
"""

from collections.abc import Sequence as Rows
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import DTypeLike

from seqserve.batch import RowCopy
from seqserve.cache_budget import NOTHING, CacheBudget, CacheResize
from seqserve.session import row_names

Place = tuple[str, int, np.dtype[Any], list[int], int]
"""Device, its number, format, shape and address: what a binding wants to know of a tensor."""


def place(value: onnxruntime.OrtValue, dtype: DTypeLike, num_rows: int | None = None) -> Place:
    """Where a tensor lies, or its first rows, which need no copy to be bound."""
    shape = value.shape()
    if num_rows is not None:
        shape = [num_rows, *shape[1:]]
    return value.device_name().lower(), 0, np.dtype(dtype), shape, value.data_ptr()


class DeviceCache:
    """Self-attention (target) and cross-attention (source) keys and values of all rows.

    ``target`` holds 2L tensors [R, H, P, D] and ``source`` as many [R, H, S, D]; entry
    ``2 * layer`` holds keys, the next one values. It starts without tensors. Worker thread only.
    """

    def __init__(
        self,
        move_rows: onnxruntime.InferenceSession,
        *,
        num_layers: int,
        num_heads: int,
        head_size: int,
        dtype: DTypeLike,
        device_type: str,
    ) -> None:
        self._move_rows = move_rows
        self._cache_names = row_names("past_key_values", num_layers)
        self._origin_names = row_names("origin_key_values", num_layers)
        self._present_names = row_names("present", num_layers)
        self._num_tensors = 2 * num_layers
        self._num_heads = num_heads
        self._head_size = head_size
        self._dtype = np.dtype(dtype)
        self._device_type = device_type
        self.extent = NOTHING
        """Rows and positions there are."""
        self.target: list[onnxruntime.OrtValue] = []
        self.source: list[onnxruntime.OrtValue] = []
        self.generation = 0
        """Grows when tensors were replaced: what is bound to the old ones is out of date."""

    def budget(self, max_bytes: int, max_rows: int) -> CacheBudget:
        """What the rows of this cache cost."""
        position_bytes = self._num_tensors * self._num_heads * self._head_size
        position_bytes *= self._dtype.itemsize
        return CacheBudget(
            max_bytes=max_bytes,
            max_rows=max_rows,
            target_position_bytes=position_bytes,
            source_position_bytes=position_bytes,
            # A side is replaced as a whole, in one run of the graph.
            num_tensors=1,
        )

    def resize(self, change: CacheResize) -> None:
        """Replaces the sides whose size changes, one after the other, the one that shrinks first.

        So the bytes of old and new tensors together stay within what the budget counts for the
        larger of both extents. Nothing else may hold the old tensors.
        """
        extent, kept = change
        self.extent = NOTHING  # if memory runs out half-way
        self.generation += 1
        sides = [
            (self.target, (extent.num_rows, extent.target_length)),
            (self.source, (extent.num_rows, extent.source_length)),
        ]
        sides.sort(key=_growth)
        rows = np.arange(kept.num_rows)
        for tensors, size in sides:
            if _rows_and_positions(tensors) == size:
                continue
            if not kept.num_rows:
                tensors.clear()
            new = self._allocate(*size)
            if kept.num_rows:
                self._move(new, tensors, rows, rows)
            tensors[:] = new
        self.extent = extent

    def release(self) -> None:
        """Gives all memory back to onnxruntime's allocator of the device."""
        self.resize(CacheResize(NOTHING, NOTHING))

    def copy_rows(self, copies: Rows[RowCopy]) -> None:
        """Copies rows, all at once: sources are read before any write.

        Whole ones, whatever positions two rows have in common: a graph takes the same positions of
        all rows, and a device moves memory faster than it would be told what to leave out. Nor need
        what is in common be equal to the last bit, if it was computed in steps of other sizes.
        """
        for tensors, moved in (
            (self.target, list(copies)),
            (self.source, [copy for copy in copies if copy.source_length]),
        ):
            if moved:
                sources = np.array([copy.source for copy in moved])
                targets = np.array([copy.target for copy in moved])
                self._move(tensors, tensors, sources, targets)

    def write_sources(self, rows: Rows[Rows[int]], layers: Rows[onnxruntime.OrtValue]) -> None:
        """Writes the encoder's outputs for a batch to the rows of its sequences.

        Args:
            rows: The rows of each sequence, one per hypothesis.
            layers: Keys and values of every layer in turn, each [B, H, S, D].
        """
        origins = np.repeat(np.arange(len(rows)), [len(own) for own in rows])
        self._move(self.source, layers, origins, np.concatenate([np.array(own) for own in rows]))

    def _move(
        self,
        caches: Rows[onnxruntime.OrtValue],
        origins: Rows[onnxruntime.OrtValue],
        source_rows: np.ndarray[Any, np.dtype[np.int64]],
        target_rows: np.ndarray[Any, np.dtype[np.int64]],
    ) -> None:
        """Writes rows of the origins to rows of the caches."""
        binding = self._move_rows.io_binding()
        binding.bind_cpu_input("source_rows", source_rows)
        binding.bind_cpu_input("target_rows", target_rows)
        for index in range(self._num_tensors):
            cache = place(caches[index], self._dtype)
            binding.bind_input(self._cache_names[index], *cache)
            binding.bind_output(self._present_names[index], *cache)
            binding.bind_input(self._origin_names[index], *place(origins[index], self._dtype))
        self._move_rows.run_with_iobinding(binding)

    def _allocate(self, num_rows: int, length: int) -> list[onnxruntime.OrtValue]:
        """The tensors of one side, of zeros: a kernel may multiply what it masks, NaN included."""
        if not num_rows:
            return []
        shape = (num_rows, self._num_heads, length, self._head_size)
        return [
            onnxruntime.OrtValue.ortvalue_from_numpy(
                np.zeros(shape, self._dtype), self._device_type, 0
            )
            for _ in range(self._num_tensors)
        ]


def _rows_and_positions(tensors: list[onnxruntime.OrtValue]) -> tuple[int, int]:
    if not tensors:
        return 0, 0
    shape = tensors[0].shape()
    return shape[0], shape[2]


def _growth(side: tuple[list[onnxruntime.OrtValue], tuple[int, int]]) -> int:
    """Rows times positions that a side gains."""
    tensors, (num_rows, length) = side
    old_rows, old_length = _rows_and_positions(tensors)
    return num_rows * length - old_rows * old_length
