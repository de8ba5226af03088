"""Whose turn is next among the sequences that wait: pure policy.

What holds:

* A sequence of a higher class comes before one of a lower class. When one has waited for
  ``ageing_seconds`` since it came, or since it rose, it rises by one class: everyone comes to the
  top. With it rise those that came with its priority or a higher one, and who comes later joins
  them: waiting wins over other priorities, but not over the fair shares below.
* Within a class callers share by work, and not by how much they asked for: next is a sequence of
  the caller who has been served least since there was a choice. So one who comes new is next after
  at most one sequence, however many others have queued.
* The calls of one caller share its turns in the same way: a small one does not wait for all
  of a large one. Sequences of one call go in order of arrival.

:mod:`seqserve.fair_share` has the shares.
"""

import itertools
import math
from collections.abc import Collection, Iterator
from functools import partial
from typing import NamedTuple

from seqserve.fair_share import Entry, FairShare, Line
from seqserve.sequence import Priority, Sequence


class Turn(NamedTuple):
    """A waiting sequence, and the class it has risen to."""

    priority: Priority
    sequence: Sequence


class WaitingQueue:
    """The sequences of one model that have not been started."""

    def __init__(self, ageing_seconds: float) -> None:
        self._ageing_seconds = ageing_seconds
        self._classes = {priority: _Class() for priority in sorted(Priority, reverse=True)}
        self._levels: dict[Sequence, Priority] = {}
        """The class each sequence is in, which may be higher than its priority."""
        self._arrivals = itertools.count()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._levels)

    def __iter__(self) -> Iterator[Sequence]:
        """All that wait, in no order to rely on."""
        return iter(self._levels)

    @property
    def oldest_at(self) -> float:
        """When the oldest that waits was submitted; infinity if none does."""
        return min(one.callers.oldest_at for one in self._classes.values())

    def add(self, sequence: Sequence) -> None:
        """Takes a sequence."""
        level = self._find_level(sequence.priority)
        self._add(level, Entry(next(self._arrivals), sequence))

    def remove(self, sequences: Collection[Sequence]) -> None:
        """Forgets sequences that will not be run."""
        self._remove(sequences, is_charged=False)

    def take(self, sequences: Collection[Sequence]) -> None:
        """Removes sequences that are run now, and charges their callers and calls."""
        self._remove(sequences, is_charged=True)

    def next_turns(self, now: float, count: int) -> list[Turn]:
        """The sequences whose turn is next, at most so many, in order."""
        self._age(now)
        turns = (
            Turn(priority, entry.sequence)
            for priority, one in self._classes.items()
            for entry in one.callers.in_order()
        )
        return list(itertools.islice(turns, count))

    def _find_level(self, priority: Priority) -> Priority:
        """The highest class that a sequence of at most this priority waits in."""
        for level, one in self._classes.items():
            if level > priority and any(one.counts[born] for born in Priority if born <= priority):
                return level
        return priority

    def _add(self, level: Priority, entry: Entry) -> None:
        """Puts a sequence into a class, from which it will rise."""
        one = self._classes[level]
        one.due_at = min(one.due_at, self._due_at(level, entry.sequence))
        one.counts[entry.sequence.priority] += 1
        one.callers.add(entry)
        self._levels[entry.sequence] = level

    def _remove(self, sequences: Collection[Sequence], *, is_charged: bool) -> None:
        found: dict[Priority, set[Sequence]] = {}
        for sequence in sequences:
            level = self._levels.pop(sequence, None)
            if level is not None:
                found.setdefault(level, set()).add(sequence)
                self._classes[level].counts[sequence.priority] -= 1
        for level, members in found.items():
            self._classes[level].callers.remove(members, is_charged=is_charged)

    def _due_at(self, priority: Priority, sequence: Sequence) -> float:
        """When a sequence in a class rises into the next one."""
        if priority == max(Priority):
            return math.inf
        num_periods = priority - sequence.priority + 1
        return sequence.submitted_at + num_periods * self._ageing_seconds

    def _age(self, now: float) -> None:
        for level, one in reversed(self._classes.items()):
            if one.due_at <= now:
                due, one.due_at = one.callers.remove_due(now, partial(self._due_at, level))
                lowest = min((entry.sequence.priority for entry in due), default=max(Priority))
                others, one.due_at = one.callers.remove_due(
                    now, partial(self._due_with, lowest, level)
                )
                for entry in (*due, *others):
                    one.counts[entry.sequence.priority] -= 1
                    self._add(Priority(level + 1), entry)

    def _due_with(self, lowest: Priority, level: Priority, sequence: Sequence) -> float:
        """When a sequence rises if those of a priority, or of a higher one, rise now."""
        return -math.inf if sequence.priority >= lowest else self._due_at(level, sequence)


class _Class:
    """The sequences of one class of priority."""

    def __init__(self) -> None:
        self.callers = FairShare(
            lambda sequence: sequence.caller,
            lambda: FairShare(lambda sequence: sequence.call, Line),
        )
        self.due_at = math.inf
        """No sequence rises into the next class before."""
        self.counts = dict.fromkeys(Priority, 0)
        """Sequences in it that came with each priority."""
