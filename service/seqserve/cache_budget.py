"""What a cache may take: bytes of its rows, and the extents that stay within a budget.

The arrays are dense: every row has as many positions as the row that needs most. So what sequences
need together is the sum of their rows times the longest target and the longest source among them.
Pure arithmetic: the scheduler decides with it, the cache obeys.
"""

import dataclasses
from typing import NamedTuple

_GRAIN = 32
"""Positions are allocated in multiples of it."""
_LEAST_TARGET_LENGTH = 2
"""The attention operator takes a capacity of 1 for a prompt."""


class CacheExtent(NamedTuple):
    """A part of a cache, or all of it."""

    num_rows: int
    target_length: int
    """Target positions of each row."""
    source_length: int
    """Source positions of each row."""

    def join(self, other: "CacheExtent") -> "CacheExtent":
        """What both need next to each other."""
        return CacheExtent(
            self.num_rows + other.num_rows,
            max(self.target_length, other.target_length),
            max(self.source_length, other.source_length),
        )

    def covers(self, other: "CacheExtent") -> bool:
        """Whether the other one fits into this one."""
        return all(mine >= theirs for mine, theirs in zip(self, other, strict=True))


NOTHING = CacheExtent(0, 0, 0)


class CacheResize(NamedTuple):
    """A change of the size of a cache."""

    extent: CacheExtent
    """What it becomes."""
    kept: CacheExtent
    """The part whose content stays: the first rows, and the longest valid lengths in them."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CacheBudget:
    """What one position costs, and how much there is.

    The arrays are replaced one at a time, so that an old and a new one exist next to each other for
    a moment. The bytes of an extent count this one array more.
    """

    max_bytes: int
    max_rows: int
    target_position_bytes: int
    """Of one row, in all layers."""
    source_position_bytes: int
    """Of one row, in all layers."""
    num_tensors: int
    """Arrays on each side: keys and values of every layer."""

    def row_bytes(self, target_length: int, source_length: int) -> int:
        """Bytes of a row with so many positions."""
        target = target_length * self.target_position_bytes
        source = source_length * self.source_position_bytes
        return target + source + -(-max(target, source) // self.num_tensors)

    def extent_bytes(self, extent: CacheExtent) -> int:
        """Bytes of a part of the cache."""
        return extent.num_rows * self.row_bytes(extent.target_length, extent.source_length)

    def allocation(self, need: CacheExtent) -> CacheExtent:
        """The same rows with positions rounded up, as arrays have them."""
        return CacheExtent(
            need.num_rows,
            max(_LEAST_TARGET_LENGTH, _round_up(need.target_length)),
            _round_up(need.source_length),
        )

    def bytes_for(self, need: CacheExtent) -> int:
        """Bytes of the smallest arrays that cover a need."""
        return self.extent_bytes(self.allocation(need))

    def grant(self, need: CacheExtent, held: CacheExtent) -> CacheExtent | None:
        """Finds arrays within the budget that cover a need.

        Args:
            need: What sequences need together.
            held: What the arrays are now. It is kept if it covers the need, and never becomes
                shorter if that can be avoided, so that arrays are seldom replaced.

        Returns:
            The new extent, with as many rows as the budget allows; None if nothing covers the need.
        """
        if held.covers(need):
            return held
        exact = self.allocation(need)
        for other in (held, NOTHING):
            target_length = max(exact.target_length, other.target_length)
            source_length = max(exact.source_length, other.source_length)
            # Rows nobody uses are never written, so that they take addresses and no memory.
            num_rows = self.max_bytes // self.row_bytes(target_length, source_length)
            num_rows = min(num_rows, self.max_rows)
            if num_rows >= need.num_rows:
                return CacheExtent(num_rows, target_length, source_length)
        return None


def _round_up(length: int) -> int:
    return -(-length // _GRAIN) * _GRAIN
