"""EmbedStream: requests are read ahead of their answers, which are written in their order."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from google.rpc import status_pb2

from seqserve.admission import Places
from seqserve.call_record import part_of_call
from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError, OverloadedError, SeqserveError
from seqserve.servicers.calls import Calls
from seqserve.servicers.interceptor import ENDS
from seqserve.servicers.malformed import check_form
from seqserve.servicers.request_stream import RequestStream
from seqserve.servicers.status import DETAILS_KEY, code_of, to_status
from seqserve.v1 import encoding_pb2

_log = structlog.get_logger(__name__)

_READ_AHEAD = 64
"""Requests of a stream that wait for their turn to be written, beside the one that is."""
_INPUTS_AHEAD = 1024
"""Inputs of these requests, unless one alone has more: nobody may read their answers. The more
there are to choose from, the less padding: 20 % of the tokens with 256, 7 % with 1024."""

_Embed = Callable[
    [encoding_pb2.EmbedRequest, grpc.aio.ServicerContext[Any, Any]],
    Awaitable[encoding_pb2.EmbedResponse],
]
_Answer = asyncio.Task[encoding_pb2.EmbedStreamResponse]


class EmbeddingStream(RequestStream):
    """One stream, from its first request to its last answer."""

    def __init__(
        self,
        embed: _Embed,
        context: grpc.aio.ServicerContext[Any, Any],
        config: ServerConfig,
        calls: Calls,
    ) -> None:
        super().__init__(context, config, calls)
        self._embed = embed
        self._answers: asyncio.Queue[tuple[_Answer, int] | None] = asyncio.Queue(_READ_AHEAD)
        self._numbers = itertools.count(1)
        self._num_waiting = 0
        """Requests that wait for places; those behind them do not overtake."""
        self._num_inputs = 0
        """Of requests whose answers are not written."""
        self._is_written = asyncio.Event()

    async def _read(self) -> None:
        """Takes requests while there is room for their answers."""
        earlier: list[_Answer] = []
        while (message := await self._read_one()) is not grpc.aio.EOF:
            num_inputs = _count_inputs(message)
            await self._make_room(num_inputs)
            places = await self._take_bytes(message, earlier)
            earlier = [answer for answer in earlier if not answer.done()]
            answer = self._start(self._answer(message, places, tuple(earlier)))
            if isinstance(places, Places):
                # Not when the answer begins or ends, since it may be cancelled before it begins.
                answer.add_done_callback(partial(_release, places))
            earlier.append(answer)
            await self._answers.put((answer, num_inputs))
        await self._answers.put(None)

    async def _make_room(self, num_inputs: int) -> None:
        """Waits until few enough answers are to be written."""
        while self._num_inputs and self._num_inputs + num_inputs > _INPUTS_AHEAD:
            self._is_written.clear()
            await self._is_written.wait()
        self._num_inputs += num_inputs

    async def _take_bytes(self, message: Any, earlier: list[_Answer]) -> Places | OverloadedError:
        """Places for the bytes of a request, or why there are none.

        They may be those of this stream, which are free once it has been answered so far. Nothing
        is read until then, so that no request is held without being counted but one.
        """
        num_bytes = message.ByteSize() if isinstance(message, Message) else 0
        try:
            return self._calls.admit(num_bytes)
        except OverloadedError as refusal:
            pending = [answer for answer in earlier if not answer.done()]
            if not pending:
                return refusal
        await asyncio.wait(pending)
        try:
            return self._calls.admit(num_bytes)
        except OverloadedError as refusal:
            return refusal

    async def _write(self) -> None:
        while (entry := await self._answers.get()) is not None:
            answer, num_inputs = entry
            await self._write_one(await answer)
            self._num_inputs -= num_inputs
            self._is_written.set()

    async def _answer(
        self, message: Any, places: Places | OverloadedError, earlier: tuple[_Answer, ...]
    ) -> encoding_pb2.EmbedStreamResponse:
        """The answer to one request: what its own call would have ended with."""
        with part_of_call(next(self._numbers)) as record:
            try:
                if isinstance(places, OverloadedError):
                    raise places
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
        check_form(message)
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


def _release(places: Places, answer: _Answer) -> None:
    """Gives back what a request held, whose answer has ended."""
    places.release()


def _to_error(error: BaseException, request_id: str) -> encoding_pb2.RequestError:
    details = dict(to_status(error, request_id).metadata)[DETAILS_KEY]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    return encoding_pb2.RequestError(
        code=status.code, message=status.message, details=status.details
    )
