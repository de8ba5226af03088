"""Calls of every arity are let in or refused by the same rules, whoever serves them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from seqserve.access import Access
from seqserve.bearer_token import BearerToken
from seqserve.servicers import authentication
from seqserve.servicers.authentication import AuthenticationInterceptor
from seqserve.servicers.grant import token_name

VALUE = "0123456789abcdef"
ARITIES = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


class Service(grpc.GenericRpcHandler):
    """A service of somebody else, with a method of each arity that tells who calls."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Finds the method that is named after its arity."""
        arity = handler_call_details.method.rpartition("/")[2]
        make: Any = getattr(grpc, f"{arity}_rpc_method_handler")
        handler: grpc.RpcMethodHandler[Any, Any] = make(
            _stream if arity.endswith("_stream") else _answer
        )
        return handler


async def _read(request: Any) -> None:
    """To the end of a stream of requests, so that the answer does not end it while it is sent."""
    if not isinstance(request, bytes):
        async for _ in request:
            pass


async def _answer(request: Any, context: Any) -> bytes:
    await _read(request)
    return str(token_name()).encode()


async def _stream(request: Any, context: Any) -> AsyncIterator[bytes]:
    await _read(request)
    yield str(token_name()).encode()


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    """A connection to the service, which wants the token of an administrator."""
    token = BearerToken.model_validate({"name": "owner", "value": VALUE, "scopes": ["admin"]})
    server = grpc.aio.server(interceptors=[AuthenticationInterceptor(Access(None, token))])
    server.add_generic_rpc_handlers((Service(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as connected:
        yield connected
    await server.stop(None)


async def call(channel: grpc.aio.Channel, arity: str, value: str) -> bytes:
    """The one answer of a method."""
    method: Any = getattr(channel, arity)(f"/somebody.Service/{arity}")
    message: Any = iter([b"a", b"b"]) if arity.startswith("stream_") else b"a"
    called = method(message, metadata=[("authorization", f"Bearer {value}")], timeout=20)
    if arity.endswith("_stream"):
        (answer,) = [one async for one in called]
    else:
        answer = await called
    assert isinstance(answer, bytes)
    return answer


@pytest.mark.parametrize("arity", ARITIES)
async def test_call_with_a_token_reaches_its_handler(channel: grpc.aio.Channel, arity: str) -> None:
    """Which knows whose token it was."""
    assert await call(channel, arity, VALUE) == b"owner"


@pytest.mark.parametrize("arity", ARITIES)
async def test_refusal_has_the_arity_of_the_call(channel: grpc.aio.Channel, arity: str) -> None:
    """Code, text and details arrive, also where nothing else would turn errors into a status."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, arity, "another token")
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.details() == "the token that was sent is not one of this server's"
    trailers = dict(caught.value.trailing_metadata() or ())
    info = error_details_pb2.ErrorInfo()
    rich = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert rich.details[0].Unpack(info)
    assert info.reason == "UnauthenticatedError"


async def test_stream_that_is_neither_sent_nor_ended_is_refused_all_the_same(
    channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers are not listened to for ever."""
    monkeypatch.setattr(authentication, "_LISTEN_SECONDS", 0.01)
    method: Any = channel.stream_stream("/somebody.Service/stream_stream")
    called = method(timeout=20)
    with pytest.raises(grpc.aio.AioRpcError, match="this server wants a token: ") as caught:
        await called.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
