"""A stream of requests: they are read while what comes of earlier ones is written.

What both kinds of it share: how it begins and ends, how a request is read and a response written.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import abc
import asyncio
from typing import Any

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import DeadlineError, UnavailableError
from seqserve.servicers.calls import Calls
from seqserve.servicers.grant import read_in_turn


class RequestStream(abc.ABC):
    """One stream, from its first request to its last response."""

    def __init__(
        self, context: grpc.aio.ServicerContext[Any, Any], config: ServerConfig, calls: Calls
    ) -> None:
        self._context = context
        self._calls = calls
        self._write_seconds = config.max_request_seconds
        self._is_first = True
        """Whether nothing was written yet."""
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Answers request after request.

        Raises:
            DeadlineError: The caller does not read.
            UnavailableError: The server shuts down; what was read was answered.
        """
        try:
            await asyncio.gather(self._start(self._read()), self._start(self._write()))
        finally:
            for task in self._tasks:
                task.cancel()
        if self._calls.is_draining:
            raise UnavailableError(
                "the server is shutting down; send what was not answered to another replica"
            )

    @abc.abstractmethod
    async def _read(self) -> None:
        """Takes requests until there are no more of them, as far ahead as is good."""

    @abc.abstractmethod
    async def _write(self) -> None:
        """Writes responses until there are no more of them."""

    def _start(self, work: Any) -> asyncio.Task[Any]:
        """Begins work that ends with the stream at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _read_one(self) -> Any:
        """The next request; none follows once the server shuts down.

        Raises:
            asyncio.CancelledError: The caller is gone, and did not end its requests.
        """
        reading = self._start(read_in_turn(self._context))
        draining = self._start(self._calls.wait_for_drain())
        await asyncio.wait((reading, draining), return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        if not reading.done():
            return grpc.aio.EOF
        message = reading.result()
        if message is grpc.aio.EOF:
            # So ends a stream whose connection is lost, too, and only then gRPC says that the call
            # is cancelled: before another read comes back.
            await self._context.read()
        return message

    async def _write_one(self, response: Any) -> None:
        """Writes a response.

        Raises:
            DeadlineError: The caller does not read.
        """
        if self._is_first:
            # By itself, since gRPC forgets that it was sent when a write with it is cancelled.
            await self._context.send_initial_metadata(())
            self._is_first = False
        try:
            async with asyncio.timeout(self._write_seconds):
                await self._context.write(response)
        except TimeoutError as error:
            raise DeadlineError(
                f"an answer of the stream was not read within {self._write_seconds:g} seconds "
                "(max_request_seconds)"
            ) from error
