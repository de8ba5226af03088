"""EmbedStream: requests are read ahead of their answers, which are written in their order."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
from google.rpc import status_pb2

from seqserve.call_record import part_of_call
from seqserve.config import ServerConfig
from seqserve.errors import (
    DeadlineError,
    InvalidRequestError,
    OverloadedError,
    SeqserveError,
    UnavailableError,
)
from seqserve.servicers.calls import Calls
from seqserve.servicers.grant import wait_for_rate
from seqserve.servicers.interceptor import ENDS
from seqserve.servicers.status import DETAILS_KEY, code_of, to_status
from seqserve.v1 import encoding_pb2

_log = structlog.get_logger(__name__)

_READ_AHEAD = 16
"""Requests of a stream that wait for their turn to be written, beside the one that is."""
_INPUTS_AHEAD = 256
"""Inputs of these requests, unless one alone has more: nobody may read their answers."""

_Embed = Callable[
    [encoding_pb2.EmbedRequest, grpc.aio.ServicerContext[Any, Any]],
    Awaitable[encoding_pb2.EmbedResponse],
]
_Answer = asyncio.Task[encoding_pb2.EmbedStreamResponse]


class EmbeddingStream:
    """One stream, from its first request to its last answer."""

    def __init__(
        self,
        embed: _Embed,
        context: grpc.aio.ServicerContext[Any, Any],
        config: ServerConfig,
        calls: Calls,
    ) -> None:
        self._embed = embed
        self._context = context
        self._write_seconds = config.max_request_seconds
        self._calls = calls
        self._answers: asyncio.Queue[tuple[_Answer, int] | None] = asyncio.Queue(_READ_AHEAD)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._numbers = itertools.count(1)
        self._num_waiting = 0
        """Requests that wait for places; those behind them do not overtake."""
        self._num_inputs = 0
        """Of requests whose answers are not written."""
        self._is_written = asyncio.Event()

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

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _read(self) -> None:
        """Takes requests while there is room for their answers."""
        earlier: list[_Answer] = []
        while (message := await self._next()) is not grpc.aio.EOF:
            num_inputs = _count_inputs(message)
            await self._make_room(num_inputs)
            earlier = [answer for answer in earlier if not answer.done()]
            answer = self._start(self._answer(message, tuple(earlier)))
            earlier.append(answer)
            await self._answers.put((answer, num_inputs))
        await self._answers.put(None)

    async def _make_room(self, num_inputs: int) -> None:
        """Waits until few enough answers are to be written."""
        while self._num_inputs and self._num_inputs + num_inputs > _INPUTS_AHEAD:
            self._is_written.clear()
            await self._is_written.wait()
        self._num_inputs += num_inputs

    async def _next(self) -> Any:
        """The next request; none follows once the server shuts down."""
        reading = self._start(self._read_one())
        draining = self._start(self._calls.wait_for_drain())
        await asyncio.wait((reading, draining), return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        return reading.result() if reading.done() else grpc.aio.EOF

    async def _read_one(self) -> Any:
        """The next request, when the caller's token has a turn for it."""
        message = await self._context.read()
        if message is not grpc.aio.EOF:
            await wait_for_rate()
        return message

    async def _write(self) -> None:
        is_first = True
        while (entry := await self._answers.get()) is not None:
            answer, num_inputs = entry
            message = await answer
            if is_first:
                # By itself, since gRPC forgets that it was sent when a write with it is cancelled.
                await self._context.send_initial_metadata(())
                is_first = False
            try:
                async with asyncio.timeout(self._write_seconds):
                    await self._context.write(message)
            except TimeoutError as error:
                raise DeadlineError(
                    f"an answer of the stream was not read within {self._write_seconds:g} seconds "
                    "(max_request_seconds)"
                ) from error
            self._num_inputs -= num_inputs
            self._is_written.set()

    async def _answer(
        self, message: Any, earlier: tuple[_Answer, ...]
    ) -> encoding_pb2.EmbedStreamResponse:
        """The answer to one request: what its own call would have ended with."""
        with part_of_call(next(self._numbers)) as record:
            try:
                response = await self._respond(message, earlier)
                return encoding_pb2.EmbedStreamResponse(response=response)
            except ENDS:
                raise
            except BaseException as error:  # a library in Rust that panics raises no Exception
                if not isinstance(error, SeqserveError):
                    _log.error("request of a stream failed", exc_info=error)
                record.code = code_of(error)
                return encoding_pb2.EmbedStreamResponse(error=_to_error(error, record.request_id))

    async def _respond(
        self, message: Any, earlier: tuple[_Answer, ...]
    ) -> encoding_pb2.EmbedResponse:
        if not isinstance(message, encoding_pb2.EmbedStreamRequest):
            raise InvalidRequestError("", "the request's bytes are not a message of its type")
        if not message.HasField("request"):
            raise InvalidRequestError("request", "`request` must be set")
        if not self._num_waiting:
            try:
                return await self._embed(message.request, self._context)
            except OverloadedError:
                if all(answer.done() for answer in earlier):
                    raise
        # The places may be those of this stream: they are free once it has been answered so far.
        self._num_waiting += 1
        try:
            await asyncio.wait(earlier)
        finally:
            self._num_waiting -= 1
        return await self._embed(message.request, self._context)


def _count_inputs(message: Any) -> int:
    """The inputs of a request; states of all tokens count as all that may be ahead."""
    if not isinstance(message, encoding_pb2.EmbedStreamRequest):
        return 0
    request = message.request
    return _INPUTS_AHEAD if request.return_token_embeddings else len(request.inputs)


def _to_error(error: BaseException, request_id: str) -> encoding_pb2.RequestError:
    details = dict(to_status(error, request_id).metadata)[DETAILS_KEY]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    return encoding_pb2.RequestError(
        code=status.code, message=status.message, details=status.details
    )
