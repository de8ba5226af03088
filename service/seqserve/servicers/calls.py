"""The calls that are being answered: waited for when the server stops, and ended if it takes long.

Not only admitted sequences: a call that is still being tokenized has begun, too, and one whose
answer is still being written is not done.
"""

import asyncio
from typing import Any

from seqserve.errors import UnavailableError


class Calls:
    """The calls of one server, from their message until gRPC is done with them. Event loop only."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._draining = asyncio.Event()

    @property
    def is_draining(self) -> bool:
        """Whether the server is shutting down."""
        return self._draining.is_set()

    async def wait_for_drain(self) -> None:
        """Waits until the server shuts down, for calls that have no end of their own."""
        await self._draining.wait()

    def begin(self) -> None:
        """Counts the call of the running task.

        Raises:
            UnavailableError: The server is shutting down.
        """
        if self.is_draining:
            raise UnavailableError("the server is shutting down; try another replica")
        task = _running_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def reason_of_end(self) -> UnavailableError | None:
        """Why the running task was cancelled, if it was by ``end``; None if the caller left."""
        if _running_task() not in self._ended:
            return None
        return UnavailableError(
            "the server shut down before the call was done; try another replica"
        )

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
