"""A playground before servicers that do what a test tells them, without any model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc

from browser_call import Browser, browsing
from seqserve.config import ServerConfig
from seqserve.playground.playground import Playground
from seqserve.v1 import (
    encoding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)

MODELS = "seqserve.v1.ModelService/ListModels"
EMBED = "seqserve.v1.EncodingService/Embed"


class ToldServicer(
    generation_pb2_grpc.GenerationServiceServicer,
    encoding_pb2_grpc.EncodingServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
):
    """Streams the words of a text, one when each is let go; notes who has called."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(0)
        """One for each word."""
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        """What calls end with, streams after their words."""
        self.left = asyncio.Event()
        """Set when a call has been cancelled."""
        self.arrived = asyncio.Event()
        """Set when a call has come."""
        self.models = model_pb2.ListModelsResponse()
        """What is told when models are listed."""
        self.metadata: dict[str, str | bytes] = {}
        """Of the latest call."""

    async def GenerateStream(self, request: Any, context: Any) -> None:  # type: ignore[override] # noqa: N802
        """One message for each word."""
        with self._noting(context):
            for word in request.input.text.split():
                await self.turns.acquire()
                piece = generation_pb2.GeneratePiece(text=word)
                await context.write(generation_pb2.GenerateStreamResponse(piece=piece))
            await self._refuse(context)

    async def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Those that a test wants; none by itself."""
        with self._noting(context):
            await self._refuse(context)
            return self.models

    async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Never answers by itself."""
        with self._noting(context):
            await asyncio.Event().wait()

    @contextlib.contextmanager
    def _noting(self, context: Any) -> Any:
        self.metadata = dict(context.invocation_metadata())
        self.arrived.set()
        try:
            yield
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def _refuse(self, context: Any) -> None:
        if self.refusal is not None:
            await context.abort(*self.refusal)


class Setting:
    """A playground that listens."""

    def __init__(self, playground: Playground, servicer: ToldServicer, port: int) -> None:
        self.playground = playground
        self.servicer = servicer
        self.port = port

    def browse(self) -> AbstractAsyncContextManager[Browser]:
        """A connection of a browser."""
        return browsing(self.port)


@contextlib.asynccontextmanager
async def playing(*, has_tokens: bool = False, **settings: Any) -> AsyncIterator[Setting]:
    """Runs a playground; keyword arguments are settings."""
    values = {"playground": True, "playground_port": 0} | settings
    servicer = ToldServicer()  # type: ignore[abstract]  # calls of others are not made
    playground = Playground(ServerConfig.model_validate(values), [], has_tokens=has_tokens)
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(servicer, playground.server)
    encoding_pb2_grpc.add_EncodingServiceServicer_to_server(servicer, playground.server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, playground.server)
    port = await playground.start()
    try:
        yield Setting(playground, servicer, port)
    finally:
        await playground.stop(0.0)
