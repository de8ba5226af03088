"""The calls that are being answered: bounded, and waited for or ended when the server stops.

Not only admitted sequences: a call that is still being tokenized has begun, too, and one whose
answer is still being written is not done.
"""

import asyncio
import math
import time
from typing import Any

from seqserve.admission import Admission, Places
from seqserve.errors import OverloadedError, UnavailableError
from seqserve.metrics import Metrics


class Calls:
    """The calls of one server, from their message until gRPC is done with them. Event loop only."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._messages = Admission(max_bytes, noun="bytes of messages")
        self._metrics = metrics
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._draining = asyncio.Event()
        self._began_at = -math.inf
        """When the latest call began."""

    @property
    def is_draining(self) -> bool:
        """Whether the server is shutting down."""
        return self._draining.is_set()

    async def wait_for_drain(self) -> None:
        """Waits until the server shuts down, for calls that have no end of their own."""
        await self._draining.wait()

    def begin(self, num_bytes: int) -> None:
        """Counts the call of the running task, whose message has so many bytes.

        Raises:
            UnavailableError: The server is shutting down.
            OverloadedError: Too many bytes are being worked on.
        """
        if self.is_draining:
            raise UnavailableError("the server is shutting down; try another replica")
        task, places = _running_task(), self.admit(num_bytes)
        task.add_done_callback(lambda _: places.release())
        self._began_at = time.monotonic()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def admit(self, num_bytes: int) -> Places:
        """Takes places for the bytes of a message, to hold while it is being answered.

        Raises:
            OverloadedError: Too many bytes are being worked on.
        """
        try:
            return self._messages.admit(num_bytes)
        except OverloadedError:
            labels = {"model_name": "", "model_version": ""}
            self._metrics.rejected.labels(**labels, reason="bytes_full").inc()
            raise

    def reason_of_end(self) -> UnavailableError | None:
        """Why the running task was cancelled, if it was by ``end``; None if the caller left."""
        if _running_task() not in self._ended:
            return None
        return UnavailableError(
            "the server shut down before the call was done; try another replica"
        )

    async def wait_for_calm(self, calm_seconds: float, most_seconds: float) -> None:
        """Waits until no call has begun for a while from now on; calls are taken as before.

        Args:
            calm_seconds: The while.
            most_seconds: When to give up waiting.
        """
        now = time.monotonic()
        over_at, calm_at = now + most_seconds, now + calm_seconds
        while now < min(calm_at, over_at):
            await asyncio.sleep(min(calm_at, over_at) - now)
            now, calm_at = time.monotonic(), max(calm_at, self._began_at + calm_seconds)

    async def drain(self, seconds: float) -> int:
        """Refuses calls from now on and waits for those that began; returns how many are left."""
        self._draining.set()
        return await self._wait(seconds)

    async def end(self, seconds: float) -> None:
        """Ends the calls that are left, each with a status of ours."""
        self._ended = set(self._tasks)
        for task in self._ended:
            task.cancel()
        await self._wait(seconds)

    async def _wait(self, seconds: float) -> int:
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)
        return len(self._tasks)


def _running_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
