"""Around every call: request id, metrics, access log, and the one place where errors become status.

Without it grpc.aio would answer malformed bytes and unexpected exceptions with UNKNOWN, and put the
exception's text on the wire.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message

from seqserve.call_record import CallRecord, enter_call
from seqserve.drop import is_late
from seqserve.errors import DeadlineError, SeqserveError
from seqserve.metrics import Metrics
from seqserve.servicers.calls import Calls
from seqserve.servicers.grant import token_name
from seqserve.servicers.malformed import check_form, tolerant
from seqserve.servicers.request_id import REQUEST_ID_KEY, request_id_of
from seqserve.servicers.status import Status, reason_of, to_status
from seqserve.time_limit import overdue_message
from seqserve.trace import Tracer

_log = structlog.get_logger(__name__)
_OURS = ("/seqserve.v1.", "/inference.")
_PROBES = tuple(
    f"/inference.GRPCInferenceService/{name}"
    for name in ("ServerLive", "ServerReady", "ModelReady")
)
"""Answered while the server shuts down, too: they say so."""
_ABORT_SECONDS = 1.0
_GONE = (asyncio.CancelledError, grpc.aio.InternalError)
"""What a handler meets when its caller has gone: a write may fail before gRPC cancels it."""
ENDS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""What ends a handler from outside; everything else it raises is a fault that has an answer."""


def is_tracked(method: str) -> bool:
    """Whether calls of a method are counted and logged, and their errors turned into a status."""
    return method.startswith(_OURS)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the calls of our own services; those of gRPC's own pass through.

    Their behaviors are coroutines: those of streams write their messages themselves, and read those
    of requests, where what could not be read is a message of no known type.
    """

    def __init__(self, metrics: Metrics, calls: Calls, tracer: Tracer | None = None) -> None:
        self._metrics = metrics
        self._calls = calls
        self._tracer = tracer

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Replaces the handler by a wrapped one of the same arity."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not is_tracked(method):
            return handler
        deserializer = tolerant(handler.request_deserializer)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._wrap(handler.stream_stream, method),
                request_deserializer=deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._wrap(handler.unary_stream, method),
                request_deserializer=deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._wrap(handler.unary_unary, method),
            request_deserializer=deserializer,
            response_serializer=handler.response_serializer,
        )

    def _wrap(self, behavior: Any, method: str) -> Any:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with _Call(self._metrics, self._calls, self._tracer, method, context) as tracked:
                tracked.begin(request)
                return await behavior(request, context)

        return call


class _Call:
    """One call from its message to its status."""

    def __init__(
        self,
        metrics: Metrics,
        calls: Calls,
        tracer: Tracer | None,
        method: str,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        self._metrics = metrics
        self._calls = calls
        self._method = method
        self._context = context
        self._record = _make_record(tracer, method, context)
        self._patience_seconds = context.time_remaining() or 0.0

    def begin(self, request: Any) -> None:
        """Refuses what comes too late, is too much, or could not be read."""
        if self._context.time_remaining() == 0.0:
            # gRPC would end it as well, but may let it be answered before.
            raise DeadlineError(overdue_message(None, "the call came"))
        if self._method not in _PROBES:
            # Of a stream of requests there is no message yet: it admits each for itself.
            self._calls.begin(request.ByteSize() if isinstance(request, Message) else 0)
        check_form(request)

    async def __aenter__(self) -> _Call:
        enter_call(self._record)
        self._context.set_trailing_metadata(((REQUEST_ID_KEY, self._record.request_id),))
        self._metrics.requests_in_flight.labels(method=self._method).inc()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        code, reason = grpc.StatusCode.OK, ""
        try:
            if isinstance(error, _GONE):
                code = self._code_of_cancellation()
                reason = "deadline" if code is grpc.StatusCode.DEADLINE_EXCEEDED else "cancelled"
                error = self._calls.reason_of_end()
            # A library in Rust that panics raises no Exception; its caller waits like any other.
            if error is not None and not isinstance(error, ENDS):
                status = to_status(error, self._record.request_id)
                code, reason = status.code, reason_of(error)
                if not isinstance(error, SeqserveError):
                    _log.error("call failed", exc_info=error)
                await self._abort(status)
        finally:
            self._finish(code, reason)

    def _code_of_cancellation(self) -> grpc.StatusCode:
        """What a caller that is gone was told: its deadline has passed, or it left before.

        Its clock rings first, and its reset may be faster than ours.
        """
        remaining = self._context.time_remaining()
        if remaining is None or not is_late(remaining, self._patience_seconds):
            return grpc.StatusCode.CANCELLED
        return grpc.StatusCode.DEADLINE_EXCEEDED

    async def _abort(self, status: Status) -> None:
        """Ends the call with a status, without waiting for a caller that does not read."""
        try:
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._context.abort(status.code, status.message, status.metadata)
        except TimeoutError:
            # The status lies behind messages that flow control holds back; gRPC keeps all of it
            # until the caller reads or leaves. This is how a handler ends without a word.
            raise asyncio.CancelledError from None

    def _finish(self, code: grpc.StatusCode, reason: str) -> None:
        """Counts the call, ends its span, and writes its one line of the log."""
        record, metrics, finished_at = self._record, self._metrics, time.monotonic()
        seconds = finished_at - record.started_at
        model = record.labels
        metrics.requests_in_flight.labels(method=self._method).dec()
        metrics.requests.labels(method=self._method, code=code.name, reason=reason, **model).inc()
        metrics.request_duration.labels(method=self._method, **model).observe(seconds)
        if record.trace is not None:
            record.trace.end(code, model, finished_at)
        name = token_name()
        _log.info(
            "call",
            method=self._method,
            code=code.name,
            reason=reason,
            model="/".join(filter(None, model.values())),
            milliseconds=round(seconds * 1000, 2),
            **({} if name is None else {"token_name": name}),
        )


def _make_record(
    tracer: Tracer | None, method: str, context: grpc.aio.ServicerContext[Any, Any]
) -> CallRecord:
    metadata = tuple(context.invocation_metadata() or ())
    record = CallRecord(request_id_of(metadata), time.monotonic())
    if tracer is not None:
        record.trace = tracer.begin(method, record.request_id, metadata, record.started_at)
    return record
