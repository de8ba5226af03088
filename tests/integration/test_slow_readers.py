"""Streams whose callers do not read: they hold nothing beyond their deadline or their work."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

import inference_messages
from processes import read_metrics
from seqserve.v1 import encoding_pb2, encoding_pb2_grpc, generation_pb2, generation_pb2_grpc
from serving import MakeServer, RunningServer, source, status_of
from soak.method import METHODS
from watched_server import MEBIBYTE, watched

PATIENCE_SECONDS = 20.0
METHOD = "/seqserve.v1.GenerationService/GenerateStream"

NO_LOOK_AHEAD = [("grpc.http2.lookahead_bytes", 0), ("grpc.http2.bdp_probe", 0)]
"""Of a client that reads no further than it is asked to."""
_TEXTS = ["a b c " * 8] * 100
LARGE = {
    "embed_stream": encoding_pb2.EmbedStreamRequest(
        request=encoding_pb2.EmbedRequest(
            model_name="sentence", inputs=_TEXTS, return_token_embeddings=True
        )
    ),
    "infer_stream": inference_messages.request(
        "sentence",
        inference_messages.texts(*_TEXTS),
        parameters={"return_token_embeddings": inference_messages.Parameter(bool_param=True)},
    ),
}
"""Requests whose answers are much larger than they are."""
NOTHING_IN_FLIGHT = r'seqserve_requests_in_flight\{method="%s"\} 0\.0'

Stream = grpc.aio.UnaryStreamCall[
    generation_pb2.GenerateStreamRequest, generation_pb2.GenerateStreamResponse
]


@contextlib.asynccontextmanager
async def unread_streams(running: RunningServer, count: int) -> AsyncIterator[list[Stream]]:
    """Streams of 200 tokens on a connection without look-ahead; nobody reads their messages."""
    address = f"127.0.0.1:{running.ports.grpc}"
    async with grpc.aio.insecure_channel(address, NO_LOOK_AHEAD) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        streams = []
        for index in range(count):
            one = source([7] * (index + 1), max_new_tokens=200)
            stream: Stream = stub.GenerateStream(
                generation_pb2.GenerateStreamRequest(model_name="long", input=one)
            )
            await stream.initial_metadata()
            streams.append(stream)
        yield streams


async def test_unread_stream_ends_at_its_deadline(serving: MakeServer) -> None:
    """Nothing is in flight soon after; who reads at last finds DEADLINE_EXCEEDED at the end."""
    async with serving(max_request_seconds=0.5) as running, unread_streams(running, 3) as streams:
        in_flight = running.metrics.requests_in_flight.labels(method=METHOD)
        assert in_flight._value.get() == 3
        async with asyncio.timeout(PATIENCE_SECONDS):
            while in_flight._value.get():
                await asyncio.sleep(0.01)
        assert running.num_outstanding == 0
        for stream in streams:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                _ = [message async for message in stream]
            assert status_of(caught.value) == (
                "DEADLINE_EXCEEDED: the server's limit of 0.5 seconds (max_request_seconds) passed "
                "before the whole stream was generated and read; ask for less, or generate with "
                "`max_time` below it"
            )


async def test_finished_sequence_holds_no_place_while_its_caller_reads_slowly(
    serving: MakeServer,
) -> None:
    """Long before the deadline the places of unread streams go to others."""
    started_at = time.monotonic()
    async with (
        serving(max_outstanding=2, max_inputs_per_request=2) as running,
        unread_streams(running, 2) as streams,
    ):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding:
                await asyncio.sleep(0.01)
        request = generation_pb2.GenerateRequest(
            model_name="long", inputs=[source([7], max_new_tokens=5)] * 2
        )
        assert (await running.generation.Generate(request)).results
        for stream in streams:
            messages = [message async for message in stream]
            assert messages[-1].WhichOneof("event") == "result"
    assert time.monotonic() - started_at < 60


async def test_reader_that_leaves_is_no_fault(serving: MakeServer) -> None:
    """A write that fails since the caller has gone counts as cancelled, and is no error."""
    async with serving() as running:
        with structlog.testing.capture_logs() as logs:
            async with unread_streams(running, 20) as streams, asyncio.timeout(PATIENCE_SECONDS):
                while running.num_outstanding:  # until the rest is only to be written
                    await asyncio.sleep(0.01)
                for stream in streams:
                    stream.cancel()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while running.metrics.requests_in_flight.labels(method=METHOD)._value.get():
                    await asyncio.sleep(0.01)
        found = running.count_calls("CANCELLED", METHOD)
    assert found == 20
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


async def test_unread_embeddings_end_their_stream(serving: MakeServer) -> None:
    """Who reads none of the answers, not even the first, is told so in the end."""
    request = LARGE["embed_stream"]
    async with (
        serving(max_request_seconds=0.5) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.grpc}", NO_LOOK_AHEAD) as channel,
    ):
        stub: Any = encoding_pb2_grpc.EncodingServiceStub(channel)
        stream = stub.EmbedStream(iter([request] * 20))
        await stream.initial_metadata()
        method = "/seqserve.v1.EncodingService/EmbedStream"
        in_flight = running.metrics.requests_in_flight.labels(method=method)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while in_flight._value.get():
                await asyncio.sleep(0.01)
        assert running.num_outstanding == 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(PATIENCE_SECONDS):
                _ = [answer async for answer in stream]
    assert status_of(caught.value) == (
        "DEADLINE_EXCEEDED: an answer of the stream was not read within 0.5 seconds "
        "(max_request_seconds)"
    )


@pytest.mark.parametrize("kind", ["embed_stream", "infer_stream"])
async def test_unread_answers_take_little_memory(store: Path, kind: str) -> None:
    """A gigabyte is asked for by 8 streams; the server makes less than 16 MiB for each.

    That is until their deadline, at which all of them end.
    """
    num_streams, num_requests = 8, 400
    method = METHODS[kind]
    request = LARGE[kind]
    async with (
        watched(
            store, "--max-request-seconds", "3", max_growth=num_streams * 16 * MEBIBYTE
        ) as server,
        grpc.aio.insecure_channel(server.target, NO_LOOK_AHEAD) as channel,
    ):
        (answer,) = [one async for one in method.open(channel)(iter([request]))]
        assert num_streams * num_requests * answer.ByteSize() > 1000 * MEBIBYTE
        streams = [method.open(channel)(iter([request] * num_requests)) for _ in range(num_streams)]
        for stream in streams:
            await stream.initial_metadata()
        growths = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not re.search(
                NOTHING_IN_FLIGHT % method.path, await read_metrics(server.ports.metrics)
            ):
                growths.append(server.growth())
                await asyncio.sleep(0.05)
        assert max(growths) < num_streams * 16 * MEBIBYTE
