"""Streams of one target: ``GenerationStream`` blocks between pieces, the other one awaits them."""

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from seqserve.client.errors import to_call_error
from seqserve.client.generation_messages import to_generation, to_piece
from seqserve.client.results import Generation, Piece


class _Stream:
    """A call under way, and the result once it has come."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._result: Generation | None = None

    @property
    def result(self) -> Generation:
        """The whole result.

        Raises:
            RuntimeError: The stream has not been read to its end.
        """
        if self._result is None:
            raise RuntimeError("the stream has not been read to its end")
        return self._result

    def close(self) -> None:
        """Stops the generation if it is still going on."""
        self._call.cancel()


class GenerationStream(_Stream):
    """Iterates the pieces of one target; ``result`` is the whole, after the last piece.

    Use it as a context manager, or call ``close``, when you may stop before the end: the server
    then stops, too.
    """

    def __iter__(self) -> Iterator[Piece]:
        try:
            for message in self._call:
                if message.WhichOneof("event") == "piece":
                    yield to_piece(message.piece)
                else:
                    self._result = to_generation(message.result)
        except grpc.RpcError as error:
            raise to_call_error(error) from error
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncGenerationStream(_Stream):
    """Iterates (``async for``) the pieces of one target; ``result`` is the whole, at the end.

    Use it as a context manager, or call ``close``, when you may stop before the end: the server
    then stops, too.
    """

    async def __aiter__(self) -> AsyncIterator[Piece]:
        try:
            async for message in self._call:
                if message.WhichOneof("event") == "piece":
                    yield to_piece(message.piece)
                else:
                    self._result = to_generation(message.result)
        except grpc.aio.AioRpcError as error:
            raise to_call_error(error) from error
        finally:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
