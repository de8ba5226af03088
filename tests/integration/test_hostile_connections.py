"""Whatever comes in on a connection, the server stays up and others are served."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from http2_frames import END_STREAM, PING, Frame, Http2Connection, Kind, call_headers
from seqserve.v1 import encoding_pb2, model_pb2
from serving import MakeServer, RunningServer

PATIENCE_SECONDS = 20.0
GENERATE = "/seqserve.v1.GenerationService/Generate"
STREAM = "/seqserve.v1.GenerationService/GenerateStream"
ENHANCE_YOUR_CALM = 11
REFUSED_STREAM = 7
MAX_CONCURRENT_STREAMS = 3
"""The number of the setting."""


async def check_served(running: RunningServer) -> None:
    """Computes something for another client, and answers probes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        reply = await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=["a b"]))
        assert len(reply.embeddings) == 1
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.health}") as channel:
            health = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest()
            )
            assert health.status == health_pb2.HealthCheckResponse.SERVING


def num_in_flight(running: RunningServer) -> float:
    """Calls whose messages have arrived and which are not answered."""
    return sum(
        sample.value
        for metric in running.metrics.registry.collect()
        if metric.name == "seqserve_requests_in_flight"
        for sample in metric.samples
    )


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /seqserve.v1.ModelService/ListModels HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        bytes.fromhex("160301003f0100003b0303") + bytes(52),
        random.Random(3).randbytes(4096),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + random.Random(5).randbytes(4096),
        bytes(65536),
    ],
    ids=["http-1.1", "http-1.1-post", "tls", "random", "random-after-preface", "zeros"],
)
async def test_other_protocols_are_hung_up_on(serving: MakeServer, data: bytes) -> None:
    """The connection is closed, without waiting for the handshake's time to end."""
    async with serving() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.ports.grpc)
        started_at = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                writer.write(data)
                await reader.read()  # to the end
        except ConnectionError:
            pass  # closed while bytes were on their way
        finally:
            writer.close()
        assert time.monotonic() - started_at < 5
        await check_served(running)


async def test_silent_connections_are_closed(serving: MakeServer) -> None:
    """Each of 200 that say nothing at all, when the time for a handshake is over."""
    async with serving(handshake_seconds=0.5) as running:
        started_at = time.monotonic()
        streams = [
            await asyncio.open_connection("127.0.0.1", running.ports.grpc) for _ in range(200)
        ]
        await check_served(running)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*(reader.read() for reader, _ in streams))
        assert time.monotonic() - started_at >= 0.4
        for _, writer in streams:
            writer.close()
        await check_served(running)


async def test_calls_whose_messages_never_come_hold_nobody_up(serving: MakeServer) -> None:
    """500 of them, held open: they count neither as in flight nor as outstanding."""
    limits = {"max_outstanding": 8, "max_inputs_per_request": 8}
    async with serving(**limits) as running, Http2Connection(running.ports.grpc) as connection:
        for stream in range(1, 1001, 2):
            connection.send(call_headers(stream, GENERATE if stream % 4 == 1 else STREAM))
        await connection.settle()
        for _ in range(3):
            await check_served(running)
        assert (num_in_flight(running), running.num_outstanding) == (0, 0)


async def reset_calls(port: int, count: int) -> None:
    """Begins calls on a connection and resets each at once; gRPC may send such a client away."""
    reset = (8).to_bytes(4, "big")  # CANCEL
    async with Http2Connection(port) as connection:
        frames = [
            frame
            for stream in range(1, 2 * count, 2)
            for frame in (
                call_headers(stream, GENERATE),
                Frame(Kind.RST_STREAM, 0, stream, reset),
            )
        ]
        connection.send(*frames)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await connection.settle()


async def test_calls_that_are_reset_at_once_hold_nobody_up(serving: MakeServer) -> None:
    """1000 of them, time after time until 300 probes are answered, 297 within a second.

    What handles them is neither many at any time, nor is any of it left. gRPC hands over what
    it has read of calls before it has read that they are reset: the slower the event loop, the
    more of one flood, but never what earlier floods have left.
    """
    async with serving() as running:
        await running.model.ListModels(model_pb2.ListModelsRequest())
        num_before = len(asyncio.all_tasks())
        num_floods = 0
        is_over = False

        async def flood() -> None:
            nonlocal num_floods
            while not is_over:
                await reset_calls(running.ports.grpc, 1000)
                num_floods += 1

        task = asyncio.create_task(flood())
        seconds, handled = list[float](), list[float]()
        while len(seconds) < 300 or num_floods < 2:
            started_at = time.monotonic()
            await running.model.ListModels(model_pb2.ListModelsRequest())
            seconds.append(time.monotonic() - started_at)
            handled.append(num_in_flight(running) + len(asyncio.all_tasks()) - num_before)
        is_over = True
        await task
        assert statistics.quantiles(seconds, n=100)[-1] < 1
        assert max(handled) < 250
        await check_served(running)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(asyncio.all_tasks()) > num_before:
                await asyncio.sleep(0.01)
        assert (num_in_flight(running), running.num_outstanding) == (0, 0)


async def test_whoever_pings_too_often_is_sent_away(serving: MakeServer) -> None:
    """GOAWAY with ENHANCE_YOUR_CALM, on that connection alone."""
    async with serving() as running, Http2Connection(running.ports.grpc) as connection:
        connection.send(*[PING] * 10)
        async with asyncio.timeout(PATIENCE_SECONDS):
            goaway = await connection.receive(Kind.GOAWAY)
        assert int.from_bytes(goaway.payload[4:8], "big") == ENHANCE_YOUR_CALM
        await check_served(running)


async def test_client_that_pings_too_often_is_told(serving: MakeServer) -> None:
    """Its call is UNAVAILABLE with gRPC's words for it; another client goes on at the same time."""
    options = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 0),
    ]
    async with (
        serving() as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.grpc}", options) as channel,
    ):
        # What watches is idle between changes, so that there are pings alone.
        watches = [
            health_pb2_grpc.HealthStub(one).Watch(health_pb2.HealthCheckRequest())
            for one in (channel, running.channel)
        ]
        for watch in watches:
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await watches[0].read()
        await check_served(running)
        assert not watches[1].done()
        watches[1].cancel()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "Too many pings" in (caught.value.details() or "")


async def test_connections_are_told_how_many_calls_they_may_have(serving: MakeServer) -> None:
    """What exceeds it is refused at once, and those before it go on."""
    async with serving(max_connection_streams=7) as running:
        async with Http2Connection(running.ports.grpc) as connection:
            settings = (await connection.receive(Kind.SETTINGS)).payload
            await connection.settle()
            for stream in range(1, 16, 2):
                connection.send(call_headers(stream, GENERATE))
            async with asyncio.timeout(PATIENCE_SECONDS):
                refused = await connection.receive(Kind.RST_STREAM)
                await connection.settle()
            await check_served(running)
        pairs = [settings[start : start + 6] for start in range(0, len(settings), 6)]
        told = {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}
        assert told[MAX_CONCURRENT_STREAMS] == 7
        assert refused.stream == 15
        assert int.from_bytes(refused.payload, "big") in (REFUSED_STREAM, ENHANCE_YOUR_CALM)


@pytest.mark.parametrize(
    ("deadline", "status"),
    [("abc", 13), ("", 13), ("-1S", 13), ("1X", 13), ("0n", 4), ("99999999999S", 0)],
)
async def test_deadline_that_is_none_ends_the_call_alone(
    serving: MakeServer, deadline: str, status: int
) -> None:
    """INTERNAL, or late already; one that is too far away is the server's own."""
    async with serving() as running, Http2Connection(running.ports.grpc) as connection:
        message = Frame(Kind.DATA, END_STREAM, 1, bytes(5))
        path = "/seqserve.v1.ModelService/ListModels"
        connection.send(call_headers(1, path, grpc_timeout=deadline), message)
        async with asyncio.timeout(PATIENCE_SECONDS):
            frame = await connection.receive(Kind.HEADERS)
            if not frame.flags & END_STREAM:
                frame = await connection.receive(Kind.HEADERS)
            await connection.settle()
        value = str(status).encode()
        assert b"grpc-status" + bytes([len(value)]) + value in frame.payload
        await check_served(running)


async def test_metadata_is_limited(serving: MakeServer) -> None:
    """Up to 16 KiB is taken every time, more is refused every time."""
    request = model_pb2.ListModelsRequest()
    async with serving() as running:
        for _ in range(5):
            await running.model.ListModels(request, metadata=[("x-long", "a" * 15_000)])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.model.ListModels(request, metadata=[("x-long", "a" * 17_000)])
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await check_served(running)
