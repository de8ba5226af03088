"""Calls that nobody waits for any more: they cost nothing further, and leave nothing behind."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from typing import Any

import grpc
import pytest
import structlog

from held_engine import HeldEngine
from processes import ROOT
from seqserve.v1 import encoding_pb2, encoding_pb2_grpc, generation_pb2, generation_pb2_grpc
from serving import MakeServer, RunningServer, source
from soak.relay import Relay

PATIENCE_SECONDS = 20.0
UNARY = "/seqserve.v1.GenerationService/Generate"
STREAM = "/seqserve.v1.GenerationService/GenerateStream"
EMBED_STREAM = "/seqserve.v1.EncodingService/EmbedStream"
NUM_RACES = 1000


def request(model: str = "tiny", **options: Any) -> generation_pb2.GenerateRequest:
    """One input."""
    return generation_pb2.GenerateRequest(
        model_name=model, inputs=[source([5, 6, 7, 1], **options)]
    )


def gauges(running: RunningServer, model: str = "tiny") -> dict[str, float | None]:
    """What is under way: all of it is 0 when nothing is left of any call."""
    registry, labels = running.metrics.registry, {"model_name": model, "model_version": "1"}
    return {
        "in flight": sum(
            running.metrics.requests_in_flight.labels(method=method)._value.get()
            for method in (UNARY, STREAM)
        ),
        "outstanding": running.num_outstanding,
        "waiting": registry.get_sample_value("seqserve_waiting_sequences", labels),
        "running": registry.get_sample_value("seqserve_running_sequences", labels),
        "rows": registry.get_sample_value("seqserve_live_rows", labels),
    }


async def settle(running: RunningServer, model: str = "tiny") -> None:
    """Waits until nothing is left."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while any(gauges(running, model).values()):
            await asyncio.sleep(0.005)


def num_dropped(running: RunningServer, reason: str, state: str, model: str = "tiny") -> float:
    """Sequences given up."""
    labels = {"model_name": model, "model_version": "1", "reason": reason, "state": state}
    value = running.metrics.registry.get_sample_value("seqserve_dropped_sequences_total", labels)
    return value or 0.0


async def test_deadline_in_the_queue_costs_no_computation(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DEADLINE_EXCEEDED while another call has the only row; the model computes that one alone."""
    async with serving(max_batch_size=1, max_num_beams=1) as running:
        engine = HeldEngine(running, "tiny", monkeypatch)
        first = running.generation.Generate(request(max_new_tokens=2, min_new_tokens=1))
        await engine.arrival()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.Generate(request(), timeout=0.1)
        engine.open()
        assert len((await first).results) == 1
        await settle(running)
        assert num_dropped(running, "expired", "waiting") == 1
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert [phase for phase, _ in engine.batches] == ["encode", "decode", "decode"]


async def test_cancelled_call_in_the_queue_is_in_no_batch(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its neighbour in the queue goes on without it; nothing waits in the end."""
    async with serving() as running:
        engine = HeldEngine(running, "tiny", monkeypatch)
        first = running.generation.Generate(request(max_new_tokens=1))
        await engine.arrival()
        leaving, staying = (running.generation.Generate(request()) for _ in range(2))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding < 3:
                await asyncio.sleep(0.001)
            leaving.cancel()
            while running.num_outstanding > 2:
                await asyncio.sleep(0.001)
        engine.open()
        assert len((await first).results) == len((await staying).results) == 1
        await settle(running)
        assert num_dropped(running, "cancelled", "waiting") == 1
        assert running.count_calls("CANCELLED") == 1
    assert await leaving.code() is grpc.StatusCode.CANCELLED
    assert all(num_sequences == 1 for _, num_sequences in engine.batches)
    assert [phase for phase, _ in engine.batches].count("encode") == 2


@pytest.mark.parametrize("is_stream", [False, True], ids=["unary", "stream"])
async def test_cancels_that_race_with_completion_lose_nothing(
    serving: MakeServer, is_stream: bool
) -> None:
    """1000 calls are cancelled at about the time at which they end, in groups of 20.

    Each ends once: with its whole answer or as cancelled. Nothing is logged as an error, and
    nothing is left.
    """
    rng = random.Random(3)
    one = source([5, 6, 7, 1], min_new_tokens=3, max_new_tokens=3)
    group, num_cancelled = 20, 0
    async with serving() as running:

        async def race(patience: float) -> bool:
            """Whether the call was cancelled in time; else its answer is whole."""
            call: Any
            if is_stream:
                call = running.generation.GenerateStream(
                    generation_pb2.GenerateStreamRequest(model_name="tiny", input=one)
                )
            else:
                call = running.generation.Generate(
                    generation_pb2.GenerateRequest(model_name="tiny", inputs=[one])
                )
            timer = asyncio.get_running_loop().call_later(patience, call.cancel)
            try:
                result = (
                    [message async for message in call][-1].result
                    if is_stream
                    else (await call).results[0]
                )
            except asyncio.CancelledError:
                return True
            timer.cancel()
            assert result.hypotheses == whole
            return False

        reply = await running.generation.Generate(
            generation_pb2.GenerateRequest(model_name="tiny", inputs=[one])
        )
        whole = reply.results[0].hypotheses
        loop = asyncio.get_running_loop()
        with structlog.testing.capture_logs() as logs:
            for _ in range(NUM_RACES // group):
                began_at = loop.time()
                await asyncio.gather(*(race(60.0) for _ in range(group // 2)))
                typical = loop.time() - began_at
                ends = await asyncio.gather(
                    *(race(rng.uniform(0.3, 3.0) * typical) for _ in range(group))
                )
                num_cancelled += sum(ends)
            await settle(running)
        # A call that is cancelled before its message has come is none for the server.
        assert running.count_calls("OK") >= NUM_RACES - num_cancelled
        assert {"OK", "CANCELLED"} >= {
            sample.labels["code"]
            for metric in running.metrics.requests.collect()
            for sample in metric.samples
        }
    assert 20 <= num_cancelled <= NUM_RACES - 20, "no race"
    assert [entry for entry in logs if entry["log_level"] in ("error", "critical")] == []


@pytest.mark.parametrize("is_read", [True, False], ids=["await", "write"])
async def test_cancelled_stream_takes_one_step_more_at_most(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch, is_read: bool
) -> None:
    """Whether its handler waits for tokens, or for a caller that does not read."""
    options = [("grpc.http2.lookahead_bytes", 0), ("grpc.http2.bdp_probe", 0)]
    stream_request = generation_pb2.GenerateStreamRequest(
        model_name="long", input=source([7] * 20, min_new_tokens=190, max_new_tokens=199)
    )
    async with (
        serving() as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.grpc}", options) as channel,
    ):
        engine = HeldEngine(running, "long", monkeypatch, num_free=60)
        stream = generation_pb2_grpc.GenerationServiceStub(channel).GenerateStream(stream_request)
        await stream.initial_metadata()
        if is_read:
            for _ in range(59):  # an encoder pass was the first batch
                await stream.read()
        await engine.arrival(61)  # which waits
        stream.cancel()
        in_flight = running.metrics.requests_in_flight.labels(method=STREAM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while in_flight._value.get():
                await asyncio.sleep(0.001)
        assert running.num_outstanding == 0
        engine.open()
        await settle(running, "long")
        assert num_dropped(running, "cancelled", "running", "long") == 1
        assert running.count_calls("CANCELLED", STREAM) == 1
    assert len(engine.batches) == 61


CLIENT = """
import sys
import grpc
from seqserve.v1 import generation_pb2, generation_pb2_grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    source = generation_pb2.GenerateInput(token_ids=generation_pb2.TokenIds(values=[5, 6, 7, 1]))
    request = generation_pb2.GenerateRequest(model_name="tiny", inputs=[source])
    calls = [stub.Generate.future(request) for _ in range(5)]
    for call in calls:
        call.result()
"""


async def test_killed_client_leaves_nothing(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls end as cancelled, whether they are computed or wait; others go on."""
    async with serving(max_batch_size=2, max_num_beams=2) as running:
        engine = HeldEngine(running, "tiny", monkeypatch)
        client = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-c", CLIENT, f"127.0.0.1:{running.ports.grpc}"],
            env={"PYTHONPATH": str(ROOT / "service")},
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding < 5:
                await asyncio.sleep(0.005)
        client.kill()
        await asyncio.to_thread(client.wait)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.count_calls("CANCELLED", UNARY) < 5:
                await asyncio.sleep(0.005)
        engine.open()
        await settle(running)
        assert len((await running.generation.Generate(request())).results) == 1


async def test_silent_streams_of_a_lost_connection_are_cancelled(serving: MakeServer) -> None:
    """Not done, though their requests end: none of 50, whose callers wait for nothing."""
    num_streams = 50
    async with (
        serving() as running,
        Relay(f"127.0.0.1:{running.ports.grpc}") as relay,
        grpc.aio.insecure_channel(relay.target) as channel,
    ):
        stub = encoding_pb2_grpc.EncodingServiceStub(channel)
        streams = [stub.EmbedStream() for _ in range(num_streams)]
        for stream in streams:
            await stream.write(encoding_pb2.EmbedStreamRequest())
            answer: Any = await stream.read()
            assert answer.HasField("error")
        relay.cut()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.metrics.requests_in_flight.labels(method=EMBED_STREAM)._value.get():
                await asyncio.sleep(0.005)
        assert running.count_calls("CANCELLED", EMBED_STREAM) == num_streams
        assert {await stream.code() for stream in streams} == {grpc.StatusCode.UNAVAILABLE}
