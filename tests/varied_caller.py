"""A caller whose calls end in every way there is."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest

from held_engine import HeldEngine
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from serving import RunningServer, source

PATIENCE_SECONDS = 20.0
NUM_PLACES = 64


class Caller:
    """Makes calls of every outcome, of inputs that are never the same unless they should be."""

    def __init__(self, running: RunningServer) -> None:
        self._running = running
        self._number = itertools.count()

    async def call_all(self, number: int) -> None:
        """So many calls of each outcome."""
        for make_calls in (
            self._answer,
            self._stream,
            self._stream_embeddings,
            self._refuse,
            self._abandon,
            self._overload,
            self._fail,
        ):
            await make_calls(number)

    async def load(self) -> None:
        """One version that is served then, and one that is refused."""
        for version, codes in (("2", set()), ("3", {"FAILED_PRECONDITION"})):
            request = model_pb2.LoadModelRequest(model_name="long", model_version=version)
            assert set(await end(self._running.model.LoadModel(request))) == codes

    async def _answer(self, number: int) -> None:
        for _ in range(number):
            request = self._request("tiny", text=self._text())
            # Two at the same time, and one after them.
            await asyncio.gather(*(self._running.generation.Generate(request) for _ in range(2)))
            await self._running.generation.Generate(request)
            # Inputs of several lengths, so that there is padding.
            inputs = [self._text(), f"{self._text()} a b c d e"]
            await self._running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=inputs))

    async def _stream(self, number: int) -> None:
        for _ in range(number):
            one = self._source(min_new_tokens=8, max_new_tokens=12)
            request = generation_pb2.GenerateStreamRequest(model_name="tiny", input=one)
            async for _ in self._running.generation.GenerateStream(request):
                pass

    async def _stream_embeddings(self, number: int) -> None:
        requests = [
            encoding_pb2.EmbedStreamRequest(
                request=encoding_pb2.EmbedRequest(inputs=[self._text()])
            )
            for _ in range(number)
        ]
        async for answer in self._running.encoding.EmbedStream(iter(requests)):
            assert answer.WhichOneof("outcome") == "response"

    async def _refuse(self, number: int) -> None:
        for _ in range(number):
            generate = self._running.generation.Generate
            empty = generation_pb2.GenerateRequest(model_name="tiny")
            assert await end(generate(empty)) == ["INVALID_ARGUMENT"]
            assert await end(generate(self._request("none"))) == ["NOT_FOUND"]

    async def _abandon(self, number: int) -> None:
        """Calls whose deadlines pass, and calls that are cancelled, behind one that is held."""
        generate = self._running.generation.Generate
        with hold(self._running) as engine:
            first = generate(self._request("tiny"))
            await engine.arrival()
            cancelled = [generate(self._request("tiny")) for _ in range(number)]
            await until(lambda: self._running.num_outstanding == 1 + number)
            for call in cancelled:
                call.cancel()
            expired = [generate(self._request("tiny"), timeout=0.2) for _ in range(number)]
            assert await end(*expired) == ["DEADLINE_EXCEEDED"] * number
            engine.open()
            await first
            await until(lambda: self._running.num_outstanding == 0)

    async def _overload(self, number: int) -> None:
        """Calls beyond one that has every place."""
        generate = self._running.generation.Generate
        with hold(self._running) as engine:
            inputs = [self._source() for _ in range(NUM_PLACES)]
            full = generate(generation_pb2.GenerateRequest(model_name="tiny", inputs=inputs))
            await engine.arrival()
            refused = [generate(self._request("tiny")) for _ in range(number)]
            assert await end(*refused) == ["RESOURCE_EXHAUSTED"] * number
            engine.open()
            await full

    async def _fail(self, number: int) -> None:
        """Calls of a model whose engine is broken."""

        def fail(batch: Any, options: object = None) -> None:
            raise RuntimeError("planted")

        engine = self._running.registry.find("sentence", "", None).lanes.workers[0]._engine
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "run", fail)
            for _ in range(number):
                request = encoding_pb2.EmbedRequest(inputs=[self._text()])
                assert await end(self._running.encoding.Embed(request)) == ["INTERNAL"]

    def _source(self, **options: object) -> generation_pb2.GenerateInput:
        number = next(self._number)
        return source([*(4 + number // 20**place % 20 for place in range(3)), 1], **options)

    def _text(self) -> str:
        number = next(self._number)
        return " ".join("abcdefgh"[int(digit)] for digit in f"{number:o}")

    def _request(self, name: str, text: str | None = None) -> generation_pb2.GenerateRequest:
        one = self._source() if text is None else generation_pb2.GenerateInput(text=text)
        return generation_pb2.GenerateRequest(model_name=name, inputs=[one])


async def end(*calls: Awaitable[Any]) -> list[str]:
    """The codes of those that fail."""
    ends = await asyncio.gather(*calls, return_exceptions=True)
    return [one.code().name for one in ends if isinstance(one, grpc.aio.AioRpcError)]


async def until(is_so: Callable[[], bool]) -> None:
    """Waits for the server."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():
            await asyncio.sleep(0.001)


@contextlib.contextmanager
def hold(running: RunningServer) -> Iterator[HeldEngine]:
    """The engine of ``tiny`` computes nothing until it is opened."""
    with pytest.MonkeyPatch.context() as patch:
        yield HeldEngine(running, "tiny", patch)
