"""Bytes of the requests of a stream: all that are held are counted, but for the one just read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc

from seqserve.call_record import CallRecord, enter_call
from seqserve.config import ServerConfig
from seqserve.metrics import Metrics
from seqserve.servicers.calls import Calls
from seqserve.servicers.embedding_stream import EmbeddingStream
from seqserve.v1 import encoding_pb2

PATIENCE_SECONDS = 20.0
REQUEST = encoding_pb2.EmbedStreamRequest(
    request=encoding_pb2.EmbedRequest(inputs=["x" * 2_000] * 4)
)
MAX_BYTES = 50_000
"""Of six requests."""


class Caller:
    """Sends requests as fast as they are read, and keeps what it is answered."""

    def __init__(self, num_requests: int) -> None:
        self.num_read = 0
        self.answers: list[encoding_pb2.EmbedStreamResponse] = []
        self._num_requests = num_requests

    async def read(self) -> Any:
        """One more request, or the end."""
        await asyncio.sleep(0)
        if self.num_read == self._num_requests:
            return grpc.aio.EOF
        self.num_read += 1
        return REQUEST

    async def send_initial_metadata(self, metadata: object) -> None:
        """Nothing of interest."""

    async def write(self, answer: encoding_pb2.EmbedStreamResponse) -> None:
        """Takes an answer."""
        self.answers.append(answer)


def start(tmp_path: Path, caller: Caller, calls: Calls, gate: asyncio.Event) -> asyncio.Task[None]:
    """A stream whose embeddings are computed when the gate is open."""

    async def embed(request: object, context: object) -> encoding_pb2.EmbedResponse:
        await gate.wait()
        return encoding_pb2.EmbedResponse()

    enter_call(CallRecord("x", 0.0))
    context: Any = caller
    stream = EmbeddingStream(embed, context, ServerConfig(models=tmp_path), calls)
    return asyncio.create_task(stream.run())


async def settle() -> None:
    """Lets tasks run until none has anything to do; each takes a few turns of the loop."""
    for _ in range(1000):
        await asyncio.sleep(0)


async def test_no_more_is_read_than_there_are_bytes_for(tmp_path: Path) -> None:
    """Requests wait unread for the bytes of those before them, and all are answered."""
    caller, calls, gate = Caller(40), Calls(MAX_BYTES, Metrics()), asyncio.Event()
    stream = start(tmp_path, caller, calls, gate)
    await settle()
    num_counted = MAX_BYTES // REQUEST.request.ByteSize()
    assert caller.num_read == num_counted + 1 == 7
    gate.set()
    await asyncio.wait_for(stream, PATIENCE_SECONDS)
    assert [one.WhichOneof("outcome") for one in caller.answers] == ["response"] * 40
    calls.admit(MAX_BYTES).release()


async def test_bytes_of_others_are_not_waited_for(tmp_path: Path) -> None:
    """A request is refused in its place, and the stream goes on."""
    caller, calls, gate = Caller(3), Calls(MAX_BYTES, Metrics()), asyncio.Event()
    gate.set()
    with calls.admit(MAX_BYTES - 1):
        await asyncio.wait_for(start(tmp_path, caller, calls, gate), PATIENCE_SECONDS)
    assert [one.error.code for one in caller.answers] == [8, 8, 8]
    assert "bytes of messages are being worked on" in caller.answers[0].error.message
    calls.admit(MAX_BYTES).release()


async def test_stream_that_is_left_gives_its_bytes_back(tmp_path: Path) -> None:
    """Also those of a request whose answer never began."""
    for num_turns in range(30):
        caller, calls, gate = Caller(40), Calls(MAX_BYTES, Metrics()), asyncio.Event()
        stream = start(tmp_path, caller, calls, gate)
        for _ in range(num_turns):
            await asyncio.sleep(0)
        stream.cancel()
        await asyncio.wait((stream,))
        await settle()
        calls.admit(MAX_BYTES).release()
