"""One computation that several inputs wait for. It ends when it is done, or when nobody waits.

Each of them waits by itself: it leaves when its caller does, and its own deadline ends its wait.
The computation has the latest deadline of those who joined it.
"""

import asyncio
import dataclasses
from collections.abc import Callable

from seqserve.errors import DeadlineError
from seqserve.lanes import Lanes
from seqserve.sequence import Answer, Sequence
from seqserve.time_limit import overdue_message


class Computation:
    """A copy of the sequence that came first, and all who wait for its answer. Event loop only."""

    def __init__(
        self, first: Sequence, call_size: int, on_end: Callable[["Computation"], None]
    ) -> None:
        """Prepares the computation.

        Args:
            first: The sequence that is computed; it waits like the others.
            call_size: Sequences of its call, which may be computed before it.
            on_end: Called with it when it has been answered or abandoned.
        """
        self._future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._future.add_done_callback(lambda _: on_end(self))
        self.sequence = dataclasses.replace(first, future=self._future, rows=[], row_targets={})
        self._first = first
        self._call_size = call_size
        self._waiting: dict[Sequence, asyncio.TimerHandle | None] = {}
        self._wait(first)

    @property
    def outcome(self) -> Answer | BaseException | None:
        """The answer or the error, once it has ended; None if it was abandoned."""
        if self._future.cancelled():
            return None
        return self._future.exception() or self._future.result()

    def can_take(self, sequence: Sequence, call_size: int, lanes: Lanes) -> bool:
        """Whether a sequence of such a call is answered no later than by a turn of its own.

        A computation that has begun goes on without interruption. One that waits does so behind
        others of its caller, its class and its call, in a lane that may have more to do than
        another.
        """
        own = self.sequence
        if self._future.done():
            return False
        return own.started_at > 0 or (
            own.caller == sequence.caller
            and own.priority >= sequence.priority
            and self._call_size <= call_size
            and lanes.is_ahead(own, sequence)
        )

    def take(self, sequence: Sequence) -> None:
        """Has one more sequence wait for the answer."""
        self._wait(sequence)
        own = self.sequence
        if sequence.deadline > own.deadline:
            # NOTE: the worker reads it before each step; all else of the copy is the worker's.
            own.deadline = sequence.deadline
            own.server_limit_seconds = sequence.server_limit_seconds
        loop = asyncio.get_running_loop()
        for one, timer in self._waiting.items():
            if timer is None and one.deadline < own.deadline:
                self._waiting[one] = loop.call_at(one.deadline, _expire, one)

    def answer(self, answer: Answer, done: Sequence) -> int:
        """Answers all who wait, with the times of what was done while each did.

        Args:
            answer: What they are told.
            done: The sequence that was computed.

        Returns:
            How many were answered by the computation of another sequence.
        """
        num_others = 0
        for sequence in list(self._waiting):
            future = sequence.future
            assert isinstance(future, asyncio.Future)
            if not future.done():
                _copy_course(done, sequence)
                future.set_result(dataclasses.replace(answer, timing=sequence.timing()))
                num_others += done is not self.sequence or sequence is not self._first
        return num_others

    def fail(self, error: BaseException) -> list[Sequence]:
        """Tells the error to the sequence that was computed; returns the others, who still wait."""
        others = []
        for sequence, timer in list(self._waiting.items()):
            future = sequence.future
            assert isinstance(future, asyncio.Future)
            if timer is not None:
                timer.cancel()
            if future.done():
                continue
            if sequence is self._first:
                future.set_exception(error)
            else:
                others.append(sequence)
        self._waiting.clear()
        return others

    def abandon(self) -> None:
        """Ends the computation, if it has not ended."""
        self._future.cancel()

    def _wait(self, sequence: Sequence) -> None:
        assert isinstance(sequence.future, asyncio.Future)
        self._waiting[sequence] = None
        sequence.future.add_done_callback(lambda _: self._leave(sequence))

    def _leave(self, sequence: Sequence) -> None:
        timer = self._waiting.pop(sequence, None)
        if timer is not None:
            timer.cancel()
        if not self._waiting:
            self.abandon()


def _expire(sequence: Sequence) -> None:
    """Ends the wait of a sequence whose deadline has come."""
    future = sequence.future
    assert isinstance(future, asyncio.Future)
    if not future.done():
        future.set_exception(DeadlineError(overdue_message(sequence.server_limit_seconds)))


def _copy_course(done: Sequence, waited: Sequence) -> None:
    """Writes down what was done while a sequence waited; what was done before took it no time."""
    since = waited.submitted_at
    waited.started_at = max(since, done.started_at)
    waited.encoded_at = max(since, done.encoded_at)
    waited.finished_at = max(since, done.finished_at)
    if done.first_token_at is not None:
        waited.first_token_at = max(since, done.first_token_at)
    waited.rows = list(done.rows)
    waited.first_batch_rows, waited.last_batch_rows = done.first_batch_rows, done.last_batch_rows
