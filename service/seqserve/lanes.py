"""The workers of a model: each has a running batch of its own, and sequences are shared out.

A lane computes with few threads, one where there are as many lanes as processors. Threads that
share out the operators of one step wait for each other after each of them, some hundred times a
step; lanes never wait for each other. While one lane picks tokens, another computes.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from functools import partial

from seqserve.sequence import Priority, Sequence
from seqserve.worker import Worker


class Lanes:
    """The workers of one model. All methods are called on the event loop."""

    def __init__(self, workers: Items[Worker]) -> None:
        self.workers = list(workers)
        self._calls = itertools.count(1)
        self._loads = [dict.fromkeys(Priority, 0) for _ in self.workers]
        """Work each lane has outstanding in each class, see :func:`estimate_work`."""

    def start(
        self, loop: asyncio.AbstractEventLoop, on_death: Callable[[], None] | None = None
    ) -> None:
        """Starts the threads.

        Args:
            loop: Where futures are resolved.
            on_death: Called on the loop if a worker dies of a fault outside the engine.
        """
        for worker in self.workers:
            worker.start(loop, on_death)

    def submit(self, sequences: Iterable[Sequence]) -> None:
        """Hands each sequence of a call to the live lane with the least work outstanding before it.

        That is work of its own class or a higher one, which a sequence waits for: what is urgent
        goes where little is urgent, however much there is that it overtakes. Where that is equal,
        the least work of all classes decides. Sequences never change their lane afterwards, and
        one that has aged into a higher class counts as what it came as.

        Those with the most work begin: a call is answered when its last sequence is, and a long
        one that begins last runs with few rows beside it. Sequences of an encoder go to the same
        lane as long as that has no more to do than its part, so that those of nearly one length
        meet there: they are padded less.

        Raises:
            UnavailableError: The workers are closed or dead; what was handed over before is still
                answered.
        """
        alive = self._alive()
        shares: list[list[Sequence]] = [[] for _ in self.workers]
        call = next(self._calls)
        order = sorted(sequences, key=estimate_work, reverse=True)
        part = self._part(alive, order)
        lane = -1
        for sequence in order:
            sequence.call = call
            work = estimate_work(sequence)
            is_decoded = sequence.search is not None
            if (
                lane < 0
                or is_decoded
                or self._load_before(sequence.priority, lane)[0] + work > part
            ):
                lane = self._least_loaded(alive, sequence.priority)
            self._loads[lane][sequence.priority] += work
            assert isinstance(sequence.future, asyncio.Future)
            unload = partial(self._unload, lane, sequence.priority, work)
            sequence.future.add_done_callback(unload)
            sequence.lane = lane
            shares[lane].append(sequence)
        for worker, share in zip(self.workers, shares, strict=True):
            if share:
                worker.submit(share)

    def is_ahead(self, waiting: Sequence, arriving: Sequence) -> bool:
        """Whether a sequence in a lane will be done before an equal one that would come now.

        All that its lane has to do counts as before it, what came later, too: it may be less, but
        never more.
        """
        if waiting.lane is None:
            return True  # They are of one call, which is shared out as a whole.
        own_lane = self._least_loaded(self._alive(), arriving.priority)
        least, _ = self._load_before(arriving.priority, own_lane)
        before, _ = self._load_before(waiting.priority, waiting.lane)
        return before <= least + estimate_work(arriving)

    def _alive(self) -> list[int]:
        return [lane for lane, worker in enumerate(self.workers) if worker.is_alive]

    def _least_loaded(self, alive: list[int], priority: Priority) -> int:
        """Where a sequence of a class goes; where none is alive, the first lane says so."""
        return min(alive or [0], key=partial(self._load_before, priority))

    def _part(self, alive: list[int], sequences: list[Sequence]) -> float:
        """What each lane has to do before sequences of one class are done, if all do the same."""
        if not sequences or not alive:
            return 0.0
        before = (self._load_before(sequences[0].priority, lane)[0] for lane in alive)
        return (sum(before) + sum(map(estimate_work, sequences))) / len(alive)

    def _load_before(self, priority: Priority, lane: int) -> tuple[int, int]:
        """Work of a lane that a sequence of a class waits for, and all its work."""
        loads = self._loads[lane]
        before = sum(load for other, load in loads.items() if other >= priority)
        return before, sum(loads.values())

    def _unload(
        self, lane: int, priority: Priority, work: int, future: asyncio.Future[object]
    ) -> None:
        self._loads[lane][priority] -= work
        if future.cancelled():
            self.workers[lane].look_for_abandonment()

    def close(self) -> None:
        """Refuses new sequences; those submitted are still answered, then the threads end."""
        for worker in self.workers:
            worker.close()

    async def join(self) -> None:
        """Waits until the threads have ended; call ``close`` first."""
        for worker in self.workers:
            await worker.join()


def estimate_work(sequence: Sequence) -> int:
    """About how much a sequence will take, in tokens.

    Targets are seldom more than twice as long as their sources, whatever they may be at most.
    """
    if sequence.search is None:
        return sequence.source_length
    options = sequence.search.options
    num_tokens = min(options.max_new_tokens, 2 * sequence.source_length)
    num_tokens += len(options.target_prefix)
    return sequence.source_length + sequence.num_rows * num_tokens
