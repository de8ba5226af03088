"""Whose turn is next among the sequences that wait: pure policy.

What holds:

* A sequence of a higher class comes before one of a lower class. One that has waited for
  ``ageing_seconds`` since it came, or since it rose, rises by one class: everyone comes to the top.
* Within a class callers share by work, and not by how much they asked for: next is a sequence of
  the caller who has been served least since there was a choice. So one who comes new is next after
  at most one sequence, however many others have queued.
* Sequences of one caller in one class go in order of arrival.

Source: start-time fair queueing, Goyal, Vin and Cheng 1997, IEEE/ACM Transactions on Networking
5(5), with callers as flows; work is charged when it is taken, so that a batch may take sequences
out of their order.
"""

import bisect
import heapq
import itertools
import math
from collections.abc import Callable, Collection, Iterator
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


class WaitingQueue:
    """The sequences of one model that have not been started."""

    def __init__(self, ageing_seconds: float) -> None:
        self._ageing_seconds = ageing_seconds
        self._classes = {priority: _FairShare() for priority in sorted(Priority, reverse=True)}
        self._arrivals = itertools.count()

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._classes.values()))

    def __iter__(self) -> Iterator[Sequence]:
        """All that wait, in no order to rely on."""
        return itertools.chain.from_iterable(self._classes.values())

    @property
    def oldest_at(self) -> float:
        """When the oldest that waits was submitted; infinity if none does."""
        return min(share.oldest_at for share in self._classes.values())

    def add(self, sequence: Sequence) -> None:
        """Takes a sequence."""
        self._add(sequence.priority, _Entry(next(self._arrivals), sequence))

    def remove(self, sequences: Collection[Sequence]) -> None:
        """Forgets sequences that will not be run."""
        for share in self._classes.values():
            share.remove(set(sequences))

    def take(self, sequences: Collection[Sequence]) -> None:
        """Removes sequences that are run now, and charges their callers."""
        for share in self._classes.values():
            share.remove(set(sequences), is_charged=True)

    def next_turns(self, now: float, count: int) -> list[Turn]:
        """The sequences whose turn is next, at most so many, in order."""
        self._age(now)
        turns = (
            Turn(priority, sequence)
            for priority, share in self._classes.items()
            for sequence in share.in_order()
        )
        return list(itertools.islice(turns, count))

    def _add(self, priority: Priority, entry: _Entry) -> None:
        """Puts a sequence into a class, from which it will rise."""
        due_at = self._due_at(priority, entry.sequence)
        self._classes[priority].add(entry, due_at)

    def _due_at(self, priority: Priority, sequence: Sequence) -> float:
        """When a sequence in a class rises into the next one."""
        if priority == max(Priority):
            return math.inf
        num_periods = priority - sequence.priority + 1
        return sequence.submitted_at + num_periods * self._ageing_seconds

    def _age(self, now: float) -> None:
        for priority, share in reversed(self._classes.items()):
            if share.due_at <= now:
                for entry in share.remove_due(now, partial(self._due_at, priority)):
                    self._add(Priority(priority + 1), entry)


class _FairShare:
    """The sequences of one class, in one line for each caller."""

    def __init__(self) -> None:
        self._lines: dict[str, list[_Entry]] = {}
        self._served: dict[str, float] = {}
        """Work done for each caller; who is new begins with the least of those who wait."""
        self.due_at = math.inf
        """No sequence rises into the next class before."""

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Sequence]:
        return (entry.sequence for line in self._lines.values() for entry in line)

    @property
    def oldest_at(self) -> float:
        heads = (line[0].sequence.submitted_at for line in self._lines.values())
        return min(heads, default=math.inf)

    def add(self, entry: _Entry, due_at: float) -> None:
        self.due_at = min(self.due_at, due_at)
        caller = entry.sequence.caller
        if caller not in self._lines:
            least = min((self._served[other] for other in self._lines), default=0.0)
            self._served[caller] = max(self._served.get(caller, 0.0), least)
            self._lines[caller] = []
        bisect.insort(self._lines[caller], entry, key=_arrival)

    def in_order(self) -> Iterator[Sequence]:
        """Sequences as they would be served one by one."""
        heads = [
            (self._served[caller], line[0].arrival, caller, 0)
            for caller, line in self._lines.items()
        ]
        heapq.heapify(heads)
        while heads:
            served, _, caller, place = heapq.heappop(heads)
            line = self._lines[caller]
            yield line[place].sequence
            if place + 1 < len(line):
                served += line[place].sequence.work
                heapq.heappush(heads, (served, line[place + 1].arrival, caller, place + 1))

    def remove(self, sequences: Collection[Sequence], *, is_charged: bool = False) -> None:
        for caller in list(self._lines):
            line = self._lines[caller]
            kept = [entry for entry in line if entry.sequence not in sequences]
            if len(kept) == len(line):
                continue
            if is_charged:
                gone = (entry.sequence for entry in line if entry.sequence in sequences)
                self._served[caller] += sum(sequence.work for sequence in gone)
            self._set_line(caller, kept)
        self._forget()

    def remove_due(self, now: float, due_at: Callable[[Sequence], float]) -> list[_Entry]:
        """Removes the ones that rise now; a line may hold some that rose into it before."""
        due: list[_Entry] = []
        self.due_at = math.inf
        for caller, line in list(self._lines.items()):
            kept: list[_Entry] = []
            for entry in line:
                at = due_at(entry.sequence)
                if at <= now:
                    due.append(entry)
                else:
                    kept.append(entry)
                    self.due_at = min(self.due_at, at)
            if len(kept) < len(line):
                self._set_line(caller, kept)
        return due

    def _set_line(self, caller: str, line: list[_Entry]) -> None:
        if line:
            self._lines[caller] = line
        else:
            del self._lines[caller]

    def _forget(self) -> None:
        """Drops what does not matter: debts that those who wait have run up as well."""
        least = min((self._served[caller] for caller in self._lines), default=None)
        if least is None:
            self._served.clear()
            return
        for caller in [caller for caller in self._served if caller not in self._lines]:
            if self._served[caller] <= least:
                del self._served[caller]


def _arrival(entry: _Entry) -> int:
    return entry.arrival
