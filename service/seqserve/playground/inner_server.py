"""A gRPC server of this process for this process: where calls of the playground go.

It has the servicers and interceptors of the server that everybody calls, and in front of them a
door: a secret of this process, without which nobody comes in. So it does not matter that it speaks
no TLS, and that others on this machine can find its port: a call that has come over HTTP has shown
the certificate that the HTTP port asks for, and brings its token itself.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from collections.abc import Sequence as Items
from typing import Any

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import UnauthenticatedError
from seqserve.servicers.request_id import request_id_of
from seqserve.servicers.status import to_status
from seqserve.transport import inner_options

_SECRET_KEY = "seqserve-playground-secret"
_HOST = "127.0.0.1"
_CLOSE_SECONDS = 0.25


class InnerServer:
    """The server, and the channel to it."""

    def __init__(
        self, interceptors: Items[grpc.aio.ServerInterceptor], config: ServerConfig
    ) -> None:
        self._secret = secrets.token_hex(32)
        self.server = grpc.aio.server(
            interceptors=[_Door(self._secret), *interceptors], options=inner_options(config)
        )
        """Services are added to it before it starts."""
        self._channel: grpc.aio.Channel | None = None

    @property
    def channel(self) -> grpc.aio.Channel:
        """To the server, once it has started."""
        assert self._channel is not None
        return self._channel

    @property
    def pass_key(self) -> tuple[str, str]:
        """The metadata that opens the door."""
        return (_SECRET_KEY, self._secret)

    async def start(self) -> int:
        """Listens, on this machine alone; returns the port."""
        port = self.server.add_insecure_port(f"{_HOST}:0")
        await self.server.start()
        options = (
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
        )
        self._channel = grpc.aio.insecure_channel(f"{_HOST}:{port}", options=options)
        return port

    async def stop(self) -> None:
        """Ends what is left."""
        if self._channel is not None:
            await self._channel.close()
        await self.server.stop(_CLOSE_SECONDS)


class _Door(grpc.aio.ServerInterceptor):
    """Refuses calls that do not bring the secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler itself, or one that refuses."""
        metadata = handler_call_details.invocation_metadata or ()
        for key, value in metadata:
            given = value.encode() if isinstance(value, str) else value
            if key == _SECRET_KEY and hmac.compare_digest(given, self._secret):
                return await continuation(handler_call_details)
        status = to_status(
            UnauthenticatedError("this port is the server's own; call the gRPC port"),
            request_id_of(metadata),
        )

        async def refuse(_: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(status.code, status.message, status.metadata)

        return grpc.unary_unary_rpc_method_handler(refuse, request_deserializer=bytes)
