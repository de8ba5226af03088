"""Shares of callers, and of one caller's calls, in what is done for all: pure policy.

Source: start-time fair queueing, Goyal, Vin and Cheng 1997, IEEE/ACM Transactions on Networking
5(5), with callers as flows; work is charged when it is taken, so that a batch may take sequences
out of their order.
"""

import heapq
import math
from collections.abc import Callable, Collection, Hashable, Iterator
from typing import NamedTuple

from seqserve.sequence import Sequence


class Entry(NamedTuple):
    """A sequence, and how many came before it."""

    arrival: int
    sequence: Sequence


DueAt = Callable[[Sequence], float]
"""When a sequence rises into the next class."""


class Line:
    """The sequences of one call, in order of arrival."""

    def __init__(self) -> None:
        self._entries: dict[Sequence, Entry] = {}
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def oldest_at(self) -> float:
        """When the first one was submitted."""
        return next(self.in_order()).sequence.submitted_at

    def add(self, entry: Entry) -> None:
        """Puts a sequence to its place."""
        last = next(reversed(self._entries.values()), entry)
        self._is_sorted &= last.arrival <= entry.arrival
        self._entries[entry.sequence] = entry

    def in_order(self) -> Iterator[Entry]:
        """All of them."""
        if not self._is_sorted:
            entries = sorted(self._entries.values(), key=_arrival)
            self._entries = {entry.sequence: entry for entry in entries}
            self._is_sorted = True
        return iter(self._entries.values())

    def remove(self, sequences: Collection[Sequence], *, is_charged: bool = False) -> float:
        """Removes some that are here; returns their work."""
        for sequence in sequences:
            del self._entries[sequence]
        return float(sum(sequence.work for sequence in sequences))

    def remove_due(self, now: float, due_at: DueAt) -> tuple[list[Entry], float]:
        """Removes the ones that rise now, and tells when the next one does."""
        pairs = [(entry, due_at(entry.sequence)) for entry in self.in_order()]
        self._entries = {entry.sequence: entry for entry, at in pairs if at > now}
        return (
            [entry for entry, at in pairs if at <= now],
            min((at for _, at in pairs if at > now), default=math.inf),
        )


class FairShare:
    """Sequences of callers, or of one caller's calls, each with a line of its own."""

    def __init__(
        self, key: Callable[[Sequence], Hashable], make_line: Callable[[], "Line | FairShare"]
    ) -> None:
        self._key = key
        self._make_line = make_line
        self._lines: dict[Hashable, Line | FairShare] = {}
        self._served: dict[Hashable, float] = {}
        """Work done for each; who is new begins with the least of those who wait."""

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    @property
    def oldest_at(self) -> float:
        """When the oldest was submitted; infinity if there is none."""
        return min((line.oldest_at for line in self._lines.values()), default=math.inf)

    def add(self, entry: Entry) -> None:
        """Takes a sequence."""
        key = self._key(entry.sequence)
        if key not in self._lines:
            least = min((self._served[other] for other in self._lines), default=0.0)
            self._served[key] = max(self._served.get(key, 0.0), least)
            self._lines[key] = self._make_line()
        self._lines[key].add(entry)

    def in_order(self) -> Iterator[Entry]:
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
        """Removes some that are here, and charges for them if they run; returns their work."""
        groups: dict[Hashable, list[Sequence]] = {}
        for sequence in sequences:
            groups.setdefault(self._key(sequence), []).append(sequence)
        total = 0.0
        for key, members in groups.items():
            work = self._lines[key].remove(members, is_charged=is_charged)
            total += work
            if is_charged:
                self._served[key] += work
            self._leave(key)
        self._forget()
        return total

    def remove_due(self, now: float, due_at: DueAt) -> tuple[list[Entry], float]:
        """Removes the ones that rise now, and tells when the next one does."""
        due: list[Entry] = []
        next_at = math.inf
        for key, line in list(self._lines.items()):
            risen, at = line.remove_due(now, due_at)
            due += risen
            next_at = min(next_at, at)
            self._leave(key)
        self._forget()
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


def _arrival(entry: Entry) -> int:
    return entry.arrival
