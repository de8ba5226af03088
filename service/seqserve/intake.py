"""Which waiting sequences start, and when: pure policy of encoder (and embedding) passes.

What holds:

* A batch starts with the sequence whose turn is next and takes others of its class, then of lower
  ones, of the nearest length from a window behind it, as long as the padded cost stays within
  ``max_batch_tokens``, and none is padded to much more than its length: a short one among long
  ones is encoded alone, and soon.
* The next one is never passed over for want of rows or memory: others wait with it, so that it
  waits for what runs and for nothing else.
* Sequences start only if the cache, within its budget, has room for all that run to reach their
  last token and their whole source. Nothing is evicted.
* While fewer rows wait than ``preferred_batch_size``, no more than that run: a step takes half as
  long with half the rows, so that what runs is done sooner. What waits in a long queue is done
  sooner with all rows. Nobody waits for this longer than half a second, nor if urgent at all.
* A pass beside running sequences takes at most ``max_stall_tokens`` (or one source). While rows
  become free one at a time it is held back for an eighth of them, at most ``max_held_steps``
  decode steps: a pass for one sequence costs the others nearly as much as one for several.

``tests/bench/admission_simulation.py`` has the numbers behind the defaults.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable

from seqserve.cache_budget import NOTHING, CacheBudget, CacheExtent, CacheResize
from seqserve.sequence import Priority, Sequence
from seqserve.waiting_queue import Turn, WaitingQueue

_WINDOW_FACTOR = 4
"""Waiting sequences looked at for similar lengths, as a multiple of ``max_batch_size``."""
_MOST_PADDED = 1.5
"""Times the shortest source of a batch that the longest may be, beside the slack."""
_PADDING_SLACK = 16
"""Tokens by which it may be longer still: about what a pass of its own costs beside its tokens."""
_PATIENCE_SECONDS = 0.5
"""How long a sequence waits for others to leave the running batch though there are free rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """How much may run at once."""

    max_batch_size: int
    """Sequences in an encode or embed batch, and rows in the running batch."""
    max_batch_tokens: int
    """Source tokens of an encode or embed batch, padding included. A single longer sequence
    still runs, alone."""
    max_stall_tokens: int = 512
    """The same while others are decoding, who stand still meanwhile."""
    priority_ageing_seconds: float = 5.0
    """After which a waiting sequence rises by one class."""
    held_part: int = 8
    """An encoder pass waits until one of so many rows is free."""
    max_held_steps: int = 8
    """Decode steps it waits at most; 0: it does not wait."""
    preferred_batch_size: int | None = None
    """Rows of the running batch while fewer rows wait; None: as many as there are."""


class Intake:
    """The waiting sequences of one model, and the cache granted to those that run."""

    def __init__(self, limits: SchedulerLimits, budget: CacheBudget | None) -> None:
        self.waiting = WaitingQueue(limits.priority_ageing_seconds)
        self.extent = NOTHING
        """What the cache was last told to be."""
        self._limits = limits
        self._budget = budget
        self._num_held_steps = 0

    def add(self, sequence: Sequence) -> None:
        """Takes a new sequence.

        Raises:
            ValueError: It could never run (the servicer refuses such).
        """
        if sequence.num_rows > self._limits.max_batch_size:
            raise ValueError(f"{sequence.num_rows} rows exceed {self._limits.max_batch_size}")
        if self._budget is not None:
            num_bytes = self._budget.bytes_for(sequence.extent)
            if num_bytes > self._budget.max_bytes:
                raise ValueError(f"{num_bytes} bytes exceed {self._budget.max_bytes}")
        self.waiting.add(sequence)

    def take(self, now: float, running: list[Sequence]) -> list[Sequence]:
        """Removes the sequences of the next encode or embed batch from the queue."""
        if not len(self.waiting):
            return []
        need, limits = _need(running), self._limits
        (first,) = self.waiting.next_turns(now, 1)
        max_rows = self._choose_max_rows(now, first)
        if self._is_held_back(need, max_rows):
            return []
        if not self._has_room(need.join(first.sequence.extent), max_rows):
            return []
        length = first.sequence.source_length
        turns = self.waiting.next_turns(now, _WINDOW_FACTOR * limits.max_batch_size)
        turns.sort(key=lambda turn: (-turn.priority, abs(turn.sequence.source_length - length)))
        max_tokens = limits.max_batch_tokens
        if running:
            max_tokens = min(max_tokens, limits.max_stall_tokens)
        taken: list[Sequence] = []
        shortest = longest = length
        for _, sequence in turns:
            grown = need.join(sequence.extent)
            if not self._has_room(grown, max_rows):
                continue
            ends = shortest, longest, sequence.source_length
            if max(ends) > _MOST_PADDED * min(ends) + _PADDING_SLACK:
                continue
            shortest, longest = min(ends), max(ends)
            is_too_much = (len(taken) + 1) * longest > max_tokens
            if taken and (is_too_much or len(taken) == limits.max_batch_size):
                break
            need = grown
            taken.append(sequence)
        self.waiting.take(taken)
        self._num_held_steps = 0
        return taken

    def resize(self, running: list[Sequence], taken: list[Sequence]) -> CacheResize | None:
        """Grants sequences that were taken what they need; None if the cache need not change."""
        if self._budget is None:
            return None
        extent = self._budget.grant(_need([*running, *taken]), self.extent)
        assert extent is not None
        if extent == self.extent:
            return None
        self.extent = extent
        return CacheResize(extent, _join(map(valid_extent, running)))

    def _choose_max_rows(self, now: float, first: Turn) -> int:
        """Rows that may run now, at least those of the sequence whose turn is next."""
        most, preferred = self._limits.max_batch_size, self._limits.preferred_batch_size
        sequence = first.sequence
        if (
            preferred is None
            or sequence.search is None
            or first.priority > Priority.NORMAL
            or now - sequence.submitted_at >= _PATIENCE_SECONDS
        ):
            return most
        waiting_rows = itertools.accumulate(one.num_rows for one in self.waiting)
        if any(num_rows >= preferred for num_rows in waiting_rows):
            return most
        return min(most, max(preferred, sequence.num_rows))

    def _is_held_back(self, need: CacheExtent, num_rows: int) -> bool:
        """Whether an encoder pass should wait for more of so many rows to be free."""
        if self._budget is not None:
            num_rows = min(num_rows, self.extent.num_rows)
        num_wanted = min(num_rows // self._limits.held_part, len(self.waiting))
        is_enough = num_rows - need.num_rows >= num_wanted
        if not need.num_rows or is_enough or self._num_held_steps == self._limits.max_held_steps:
            return False
        self._num_held_steps += 1
        return True

    def _has_room(self, need: CacheExtent, max_rows: int) -> bool:
        if need.num_rows > max_rows:
            return False
        return self._budget is None or self._budget.grant(need, self.extent) is not None


def valid_extent(sequence: Sequence) -> CacheExtent:
    """The part of the cache that a running sequence has filled."""
    assert sequence.search is not None
    return CacheExtent(sequence.num_rows, sequence.search.target_length, sequence.source_length)


def _join(extents: Iterable[CacheExtent]) -> CacheExtent:
    return functools.reduce(CacheExtent.join, extents, NOTHING)


def _need(sequences: Iterable[Sequence]) -> CacheExtent:
    """What sequences need next to each other to reach their last token."""
    return _join(sequence.extent for sequence in sequences)
