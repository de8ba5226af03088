"""The workers of a model: each has a running batch of its own, and sequences are shared out.

A lane computes with few threads, one where there are as many lanes as processors. Threads that
share out the operators of one step wait for each other after each of them, some hundred times a
step; lanes never wait for each other. While one lane picks tokens, another computes.
"""

import asyncio
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from functools import partial

from seqserve.sequence import Sequence
from seqserve.worker import Worker


class Lanes:
    """The workers of one model. All methods are called on the event loop."""

    def __init__(self, workers: Items[Worker]) -> None:
        self.workers = list(workers)
        self._loads = [0] * len(self.workers)
        """Work each lane has outstanding, see :func:`estimate_work`."""

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
        """Hands each sequence to the live lane with the least work outstanding.

        Those with the most work begin: a call is answered when its last sequence is, and a long
        one that begins last runs with few rows beside it.

        Raises:
            UnavailableError: The workers are closed or dead; what was handed over before is still
                answered.
        """
        alive = [lane for lane, worker in enumerate(self.workers) if worker.is_alive]
        shares: list[list[Sequence]] = [[] for _ in self.workers]
        for sequence in sorted(sequences, key=estimate_work, reverse=True):
            # Where none is alive, the first says so.
            lane = min(alive or [0], key=self._loads.__getitem__)
            work = estimate_work(sequence)
            self._loads[lane] += work
            assert isinstance(sequence.future, asyncio.Future)
            sequence.future.add_done_callback(partial(self._unload, lane, work))
            shares[lane].append(sequence)
        for worker, share in zip(self.workers, shares, strict=True):
            if share:
                worker.submit(share)

    def _unload(self, lane: int, work: int, _: asyncio.Future[object]) -> None:
        self._loads[lane] -= work

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
