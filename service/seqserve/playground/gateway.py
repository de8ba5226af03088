"""From HTTP to gRPC: a message in, messages out, in the name of whoever sent it."""

from collections.abc import AsyncGenerator

import grpc
from google.protobuf.message import Message

from seqserve.errors import InvalidRequestError
from seqserve.playground.connection import Head
from seqserve.playground.http_error import from_call, from_ours
from seqserve.playground.inner_server import InnerServer
from seqserve.playground.method import Method
from seqserve.servicers.caller import CALLER_KEY
from seqserve.servicers.request_id import REQUEST_ID_KEY

_TOKEN_KEY = "authorization"
Metadata = tuple[tuple[str, str], ...]


class Gateway:
    """Makes calls on the inner server. Event loop only."""

    def __init__(self, inner: InnerServer, *, has_tokens: bool) -> None:
        """Prepares.

        Args:
            inner: Where calls go.
            has_tokens: Whether callers are told apart by tokens, and not by where they call from.
        """
        self._inner = inner
        self._has_tokens = has_tokens

    def to_metadata(self, head: Head, host: str, request_id: str) -> Metadata:
        """What a call brings along.

        Args:
            head: The request; of its headers, the token.
            host: The address that it came from.
            request_id: Its name.

        Raises:
            HttpError: The token cannot be sent.
        """
        pairs = [self._inner.pass_key, (REQUEST_ID_KEY, request_id)]
        for value in head.all(_TOKEN_KEY):
            if not value.isascii() or not value.isprintable():
                problem = f"the header `{_TOKEN_KEY}` must have printable ASCII characters alone"
                raise from_ours(InvalidRequestError(_TOKEN_KEY, problem), request_id)
            pairs.append((_TOKEN_KEY, value))
        if not self._has_tokens:
            # All of them would be one caller, since all come from this machine.
            pairs.append((CALLER_KEY, host))
        return tuple(pairs)

    async def call(
        self, method: Method, message: Message, metadata: Metadata
    ) -> AsyncGenerator[Message]:
        """Makes a call; it is cancelled when the iterator is closed.

        Raises:
            HttpError: The call has ended otherwise than well.
        """
        serialize = type(message).SerializeToString
        arguments = (method.path, serialize, method.response_type.FromString)
        try:
            if not method.is_streamed:
                yield await self._inner.channel.unary_unary(*arguments)(message, metadata=metadata)
                return
            stream = self._inner.channel.unary_stream(*arguments)(message, metadata=metadata)
            try:
                async for response in stream:
                    yield response
            finally:
                stream.cancel()
        except grpc.aio.AioRpcError as error:
            raise from_call(error) from error
