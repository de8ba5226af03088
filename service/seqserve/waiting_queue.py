"""Whose turn is next among the sequences that wait: pure policy.

What holds:

* A sequence of a higher class comes before one of a lower class. One that has waited for
  ``ageing_seconds`` since it came, or since it rose, rises by one class: everyone comes to the top.
* Within a class callers share by work, and not by how much they asked for: next is a sequence of
  the caller who has been served least since there was a choice. So one who comes new is next after
  at most one sequence, however many others have queued.
* The calls of one caller share its turns in the same way: a small one does not wait for all
  of a large one. Sequences of one call go in order of arrival.

Source: start-time fair queueing, Goyal, Vin and Cheng 1997, IEEE/ACM Transactions on Networking
5(5), with callers as flows; work is charged when it is taken, so that a batch may take sequences
out of their order.
"""

import bisect
import heapq
import itertools
import math
from collections.abc import Callable, Collection, Hashable, Iterator
from functools import partial
from typing import NamedTuple

from seqserve.sequence import Priority, Sequence


class Turn(NamedTuple):
    """A waiting sequence, and the class it has risen to."""

    priority: Priority
    sequence: Sequence


class _Entry(NamedTuple):
    arrival: int
    sequence: Sequence


_DueAt = Callable[[Sequence], float]
"""When a sequence rises into the next class."""


class WaitingQueue:
    """The sequences of one model that have not been started."""

    def __init__(self, ageing_seconds: float) -> None:
        self._ageing_seconds = ageing_seconds
        self._classes = {priority: _Class() for priority in sorted(Priority, reverse=True)}
        self._arrivals = itertools.count()

    def __len__(self) -> int:
        """How many wait."""
        return sum(len(one.callers) for one in self._classes.values())

    def __iter__(self) -> Iterator[Sequence]:
        """All that wait, in no order to rely on."""
        return itertools.chain.from_iterable(one.callers for one in self._classes.values())

    @property
    def oldest_at(self) -> float:
        """When the oldest that waits was submitted; infinity if none does."""
        return min(one.callers.oldest_at for one in self._classes.values())

    def add(self, sequence: Sequence) -> None:
        """Takes a sequence."""
        self._add(sequence.priority, _Entry(next(self._arrivals), sequence))

    def remove(self, sequences: Collection[Sequence]) -> None:
        """Forgets sequences that will not be run."""
        for one in self._classes.values():
            one.callers.remove(set(sequences))

    def take(self, sequences: Collection[Sequence]) -> None:
        """Removes sequences that are run now, and charges their callers and calls."""
        for one in self._classes.values():
            one.callers.remove(set(sequences), is_charged=True)

    def next_turns(self, now: float, count: int) -> list[Turn]:
        """The sequences whose turn is next, at most so many, in order."""
        self._age(now)
        turns = (
            Turn(priority, entry.sequence)
            for priority, one in self._classes.items()
            for entry in one.callers.in_order()
        )
        return list(itertools.islice(turns, count))

    def _add(self, priority: Priority, entry: _Entry) -> None:
        """Puts a sequence into a class, from which it will rise."""
        one = self._classes[priority]
        one.due_at = min(one.due_at, self._due_at(priority, entry.sequence))
        one.callers.add(entry)

    def _due_at(self, priority: Priority, sequence: Sequence) -> float:
        """When a sequence in a class rises into the next one."""
        if priority == max(Priority):
            return math.inf
        num_periods = priority - sequence.priority + 1
        return sequence.submitted_at + num_periods * self._ageing_seconds

    def _age(self, now: float) -> None:
        for priority, one in reversed(self._classes.items()):
            if one.due_at <= now:
                due, one.due_at = one.callers.remove_due(now, partial(self._due_at, priority))
                for entry in due:
                    self._add(Priority(priority + 1), entry)


class _Line:
    """The sequences of one call, in order of arrival."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Sequence]:
        return (entry.sequence for entry in self._entries)

    @property
    def oldest_at(self) -> float:
        return self._entries[0].sequence.submitted_at

    def add(self, entry: _Entry) -> None:
        bisect.insort(self._entries, entry, key=_arrival)

    def in_order(self) -> Iterator[_Entry]:
        return iter(self._entries)

    def remove(self, sequences: Collection[Sequence], *, is_charged: bool = False) -> float:
        """Removes those that are here; returns their work."""
        kept = [entry for entry in self._entries if entry.sequence not in sequences]
        if len(kept) == len(self._entries):
            return 0.0
        gone = (entry.sequence for entry in self._entries if entry.sequence in sequences)
        work = float(sum(sequence.work for sequence in gone))
        self._entries = kept
        return work

    def remove_due(self, now: float, due_at: _DueAt) -> tuple[list[_Entry], float]:
        """Removes the ones that rise now, and tells when the next one does."""
        times = [due_at(entry.sequence) for entry in self._entries]
        pairs = list(zip(self._entries, times, strict=True))
        self._entries = [entry for entry, at in pairs if at > now]
        return (
            [entry for entry, at in pairs if at <= now],
            min((at for at in times if at > now), default=math.inf),
        )


class _FairShare:
    """Sequences of callers, or of one caller's calls, each with a line of its own."""

    def __init__(
        self, key: Callable[[Sequence], Hashable], make_line: Callable[[], "_Line | _FairShare"]
    ) -> None:
        self._key = key
        self._make_line = make_line
        self._lines: dict[Hashable, _Line | _FairShare] = {}
        self._served: dict[Hashable, float] = {}
        """Work done for each; who is new begins with the least of those who wait."""

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Sequence]:
        return itertools.chain.from_iterable(self._lines.values())

    @property
    def oldest_at(self) -> float:
        return min((line.oldest_at for line in self._lines.values()), default=math.inf)

    def add(self, entry: _Entry) -> None:
        key = self._key(entry.sequence)
        if key not in self._lines:
            least = min((self._served[other] for other in self._lines), default=0.0)
            self._served[key] = max(self._served.get(key, 0.0), least)
            self._lines[key] = self._make_line()
        self._lines[key].add(entry)

    def in_order(self) -> Iterator[_Entry]:
        """As they would be served one by one."""
        heads = []
        for key, line in self._lines.items():
            entries = line.in_order()
            first = next(entries)
            # Arrivals differ, so that nothing behind them is compared.
            heads.append((self._served[key], first.arrival, first, entries))
        heapq.heapify(heads)
        while heads:
            served, _, entry, entries = heapq.heappop(heads)
            yield entry
            following = next(entries, None)
            if following is not None:
                served += entry.sequence.work
                heapq.heappush(heads, (served, following.arrival, following, entries))

    def remove(self, sequences: Collection[Sequence], *, is_charged: bool = False) -> float:
        """Removes those that are here, and charges for them if they run; returns their work."""
        total = 0.0
        for key, line in list(self._lines.items()):
            if work := line.remove(sequences, is_charged=is_charged):
                total += work
                if is_charged:
                    self._served[key] += work
                self._leave(key)
        self._forget()
        return total

    def remove_due(self, now: float, due_at: _DueAt) -> tuple[list[_Entry], float]:
        """Removes the ones that rise now, and tells when the next one does."""
        due: list[_Entry] = []
        next_at = math.inf
        for key, line in list(self._lines.items()):
            risen, at = line.remove_due(now, due_at)
            due += risen
            next_at = min(next_at, at)
            self._leave(key)
        return due, next_at

    def _leave(self, key: Hashable) -> None:
        """Drops a line that is empty."""
        if not len(self._lines[key]):
            del self._lines[key]

    def _forget(self) -> None:
        """Drops what does not matter: debts that those who wait have run up as well."""
        least = min((self._served[key] for key in self._lines), default=None)
        if least is None:
            self._served.clear()
            return
        for key in [key for key in self._served if key not in self._lines]:
            if self._served[key] <= least:
                del self._served[key]


class _Class:
    """The sequences of one class of priority."""

    def __init__(self) -> None:
        self.callers = _FairShare(
            lambda sequence: sequence.caller,
            lambda: _FairShare(lambda sequence: sequence.call, _Line),
        )
        self.due_at = math.inf
        """No sequence rises into the next class before."""


def _arrival(entry: _Entry) -> int:
    return entry.arrival
