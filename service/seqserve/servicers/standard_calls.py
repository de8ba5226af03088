"""Around the calls of gRPC's own services, health and reflection: their errors become status, too.

Callers are tools and probes of others; these calls are neither counted nor logged unless they fail.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import contextlib
import inspect
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog

from seqserve.errors import SeqserveError
from seqserve.servicers.interceptor import ENDS, is_tracked
from seqserve.servicers.malformed import check_form, tolerant
from seqserve.servicers.status import to_status

_log = structlog.get_logger(__name__)
_PASSED_ON = (*ENDS, grpc.aio.AbortError, grpc.aio.InternalError)
"""What ends a handler, whose call has its status already or has nobody who waits for one."""


class StandardCallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps what ``CallInterceptor`` does not: unary calls, and streams of responses."""

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Replaces the handler by a wrapped one of the same arity."""
        handler = await continuation(handler_call_details)
        if handler is None or is_tracked(handler_call_details.method):
            return handler
        make, behavior = _parts(handler)
        wrapped: grpc.RpcMethodHandler[Any, Any] = make(
            _wrap(behavior, is_stream=handler.request_streaming),
            request_deserializer=tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
        return wrapped


def _parts(handler: grpc.RpcMethodHandler[Any, Any]) -> tuple[Any, Any]:
    """What makes a handler of the arity of one, and its behavior."""
    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler, handler.stream_stream
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.unary_unary_rpc_method_handler, handler.unary_unary


def _wrap(behavior: Any, *, is_stream: bool) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            if not is_stream:
                check_form(request)
            answer = behavior(_checked(request) if is_stream else request, context)
            if not inspect.isasyncgen(answer):
                return await answer
            async with contextlib.aclosing(answer) as responses:
                async for response in responses:
                    await context.write(response)
        except _PASSED_ON:
            raise
        except BaseException as error:
            status = to_status(error, uuid.uuid4().hex)
            if not isinstance(error, SeqserveError):
                _log.error("call failed", exc_info=error)
            await context.abort(status.code, status.message, status.metadata)

    return call


async def _checked(requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    """Requests up to one that could not be read."""
    async for request in requests:
        check_form(request)
        yield request
