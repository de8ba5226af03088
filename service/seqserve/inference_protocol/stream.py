"""ModelStreamInfer: several requests are answered at a time, responses written as they come.

Pieces of generated targets are written at once; what has one response waits for those before it.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc
import structlog

from seqserve.config import ServerConfig
from seqserve.errors import SeqserveError
from seqserve.inference_protocol.inference import FINAL_RESPONSE, Inference
from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.servicers.calls import Calls
from seqserve.servicers.interceptor import ENDS
from seqserve.servicers.malformed import check_form
from seqserve.servicers.request_stream import RequestStream
from seqserve.servicers.status import to_status

_log = structlog.get_logger(__name__)

_MAX_REQUESTS = 16
"""Requests of a stream that are being answered."""
_MAX_INPUTS = 256
"""Inputs of these, unless one alone has more: nobody may read their answers."""
_MAX_RESPONSES = 16
"""Responses that wait to be written."""

_Response = open_inference_pb2.ModelStreamInferResponse


class InferenceStream(RequestStream):
    """One stream, from its first request to its last response."""

    def __init__(
        self,
        inference: Inference,
        context: grpc.aio.ServicerContext[Any, Any],
        config: ServerConfig,
        calls: Calls,
    ) -> None:
        super().__init__(context, config, calls)
        self._inference = inference
        self._responses: asyncio.Queue[_Response | None] = asyncio.Queue(_MAX_RESPONSES)
        self._num_requests = 0
        """Requests that are being answered."""
        self._num_inputs = 0
        """Of these."""
        self._is_answered = asyncio.Event()

    async def _read(self) -> None:
        """Takes requests while few enough are being answered."""
        answers: set[asyncio.Task[Any]] = set()
        earlier: asyncio.Task[Any] | None = None
        while (message := await self._read_one()) is not grpc.aio.EOF:
            num_inputs = _count_inputs(message)
            await self._make_room(num_inputs)
            is_decoupled = isinstance(
                message, open_inference_pb2.ModelInferRequest
            ) and self._inference.is_decoupled(message)
            answer = self._start(
                self._answer(message, num_inputs, is_decoupled, None if is_decoupled else earlier)
            )
            answers.add(answer)
            answer.add_done_callback(answers.discard)
            if not is_decoupled:
                earlier = answer
        await asyncio.gather(*answers)
        await self._responses.put(None)

    async def _make_room(self, num_inputs: int) -> None:
        """Waits until few enough requests are being answered."""
        while self._num_requests >= _MAX_REQUESTS or (
            self._num_requests and self._num_inputs + num_inputs > _MAX_INPUTS
        ):
            self._is_answered.clear()
            await self._is_answered.wait()
        self._num_requests += 1
        self._num_inputs += num_inputs

    async def _write(self) -> None:
        while (response := await self._responses.get()) is not None:
            await self._write_one(response)

    async def _answer(
        self,
        message: Any,
        num_inputs: int,
        is_decoupled: bool,
        earlier: asyncio.Task[Any] | None,
    ) -> None:
        """Answers one request: as its own call, or with the message that would have ended it."""

        async def write(response: open_inference_pb2.ModelInferResponse) -> None:
            await _wait_for(earlier)
            await self._responses.put(_Response(infer_response=response))

        try:
            check_form(message)
            with self._calls.admit(message.ByteSize()):
                await self._inference.infer_stream(message, self._context, write)
        except ENDS:
            raise
        except BaseException as error:  # a library in Rust that panics raises no Exception
            response = _to_error(error, message, is_decoupled)
            await _wait_for(earlier)
            await self._responses.put(response)
        finally:
            self._num_requests -= 1
            self._num_inputs -= num_inputs
            self._is_answered.set()


async def _wait_for(earlier: asyncio.Task[Any] | None) -> None:
    if earlier is not None:
        await asyncio.wait((earlier,))


def _count_inputs(message: Any) -> int:
    """About how many inputs a request has: the longest first dimension of its tensors."""
    if not isinstance(message, open_inference_pb2.ModelInferRequest):
        return 0
    return max((0, *(one.shape[0] for one in message.inputs if one.shape)))


def _to_error(error: BaseException, message: Any, is_decoupled: bool) -> _Response:
    request_id = uuid.uuid4().hex
    if not isinstance(error, SeqserveError):
        _log.error("request of a stream failed", request_id=request_id, exc_info=error)
    response = _Response(error_message=to_status(error, request_id).message)
    if isinstance(message, open_inference_pb2.ModelInferRequest):
        response.infer_response.id = message.id
    if is_decoupled:
        response.infer_response.parameters[FINAL_RESPONSE].bool_param = True
    return response
