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
        one that begins last runs with few rows beside it.

        Raises:
            UnavailableError: The workers are closed or dead; what was handed over before is still
                answered.
        """
        alive = [lane for lane, worker in enumerate(self.workers) if worker.is_alive]
        shares: list[list[Sequence]] = [[] for _ in self.workers]
        call = next(self._calls)
        for sequence in sorted(sequences, key=estimate_work, reverse=True):
            sequence.call = call
            # Where none is alive, the first says so.
            lane = min(alive or [0], key=partial(self._load_before, sequence.priority))
            work = estimate_work(sequence)
            self._loads[lane][sequence.priority] += work
            assert isinstance(sequence.future, asyncio.Future)
            unload = partial(self._unload, lane, sequence.priority, work)
            sequence.future.add_done_callback(unload)
            shares[lane].append(sequence)
        for worker, share in zip(self.workers, shares, strict=True):
            if share:
                worker.submit(share)

    def _load_before(self, priority: Priority, lane: int) -> tuple[int, int]:
        """Work of a lane that a sequence of a class waits for, and all its work."""
        loads = self._loads[lane]
        before = sum(load for other, load in loads.items() if other >= priority)
        return before, sum(loads.values())

    def _unload(self, lane: int, priority: Priority, work: int, _: asyncio.Future[object]) -> None:
        self._loads[lane][priority] -= work

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
