"""Lets calls in by their bearer tokens, before any of their messages is parsed.

Health is open, for probes. What nobody listed below is for administrators: whoever adds a service
must say who may call it.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any

import grpc
import structlog

from seqserve.access import Access, Grant
from seqserve.bearer_token import Scope
from seqserve.errors import SeqserveError, UnauthenticatedError
from seqserve.servicers.grant import check_rate, check_scopes, set_grant
from seqserve.servicers.interceptor import is_tracked
from seqserve.servicers.status import to_status

_log = structlog.get_logger(__name__)
_KEY = "authorization"
_SCHEME = "bearer "
_LISTEN_SECONDS = 1.0
"""To callers of streams, before they are refused."""
_HOW = "send the metadata key `authorization` once, with `Bearer TOKEN`"

_OPEN = "/grpc.health.v1.Health/"
_ADMIN_CALLS = frozenset(
    {
        "/inference.GRPCInferenceService/RepositoryModelLoad",
        "/inference.GRPCInferenceService/RepositoryModelUnload",
        "/seqserve.v1.ModelService/LoadModel",
        "/seqserve.v1.ModelService/UnloadModel",
    }
)
"""What changes which models are served."""
_CALLS_OF_ALL = frozenset(
    {
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        *(
            f"/inference.GRPCInferenceService/{name}"
            for name in (
                *("ModelMetadata", "ModelReady", "ModelStatistics", "RepositoryIndex"),
                *("ServerLive", "ServerMetadata", "ServerReady"),
            )
        ),
        "/seqserve.v1.ModelService/GetModel",
        "/seqserve.v1.ModelService/ListModels",
    }
)
"""What every known caller may look at."""
_INFERENCE = ("/inference.GRPCInferenceService/", "/seqserve.v1.")

_MAKE: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""Makes a handler, by whether its requests and its responses are streams."""


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):
    """Replaces the handlers of calls that may not come in by ones that say why.

    NOTE: it stands behind ``CallInterceptor``, which counts, logs and answers what is refused here.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler itself, or one of the same arity that refuses."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_OPEN):
            return handler
        try:
            grant = self._authenticate(handler_call_details.invocation_metadata or ())
            check_scopes(grant, scopes_for(method))
            check_rate(grant)
        except SeqserveError as error:
            return _refusing(handler, method, error)
        return handler

    def _authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> Grant:
        """The grant of the token in the metadata, which the call keeps."""
        values = [value for key, value in metadata if key == _KEY]
        if not values:
            raise UnauthenticatedError(f"this server wants a token: {_HOW}")
        if len(values) > 1:
            raise UnauthenticatedError(
                f"the metadata key `{_KEY}` was given {len(values)} times: {_HOW}"
            )
        (value,) = values
        if not isinstance(value, str) or not value.lower().startswith(_SCHEME):
            raise UnauthenticatedError(f"the metadata key `{_KEY}` holds no bearer token: {_HOW}")
        grant = self._access.find(value[len(_SCHEME) :].strip(" "))
        if grant is None:
            raise UnauthenticatedError("the token that was sent is not one of this server's")
        set_grant(grant)
        return grant


def scopes_for(method: str) -> frozenset[Scope]:
    """The scopes one of which a call needs."""
    if method in _CALLS_OF_ALL:
        return frozenset(Scope)
    is_inference = method.startswith(_INFERENCE) and method not in _ADMIN_CALLS
    return frozenset({Scope.INFER if is_inference else Scope.ADMIN})


def _refusing(
    handler: grpc.RpcMethodHandler[Any, Any], method: str, error: SeqserveError
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that ends calls with an error, without looking at what they bring."""

    async def refuse(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if handler.request_streaming:
            await _listen(request)
        if is_tracked(method):
            raise error
        status = to_status(error, uuid.uuid4().hex)
        _log.info("call", method=method, code=status.code.name)
        await context.abort(status.code, status.message, status.metadata)

    refusing: grpc.RpcMethodHandler[Any, Any] = _MAKE[
        handler.request_streaming, handler.response_streaming
    ](refuse, request_deserializer=bytes, response_serializer=handler.response_serializer)
    return refusing


async def _listen(requests: AsyncIterable[bytes]) -> None:
    """Lets a caller send its requests, for a while, and drops them.

    In Python, a caller whose stream ends while it is sending does not get to know the status.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LISTEN_SECONDS):
            async for _ in requests:
                pass
