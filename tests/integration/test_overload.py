"""More than the model can do: who is refused, how soon and until when, and who is not held up."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.batch import Batch, Outcome
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from serving import MakeServer, RunningServer, source, status_of

PATIENCE_SECONDS = 20.0
NUM_PLACES = 8
FULL = {"max_outstanding": NUM_PLACES, "max_inputs_per_request": NUM_PLACES}
REQUEST = generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([5, 6, 7, 1])])


def hold_engine(running: RunningServer, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Has a model compute nothing until the event is set."""
    opened = threading.Event()
    engine = running.registry.find("tiny", "", None).lanes.workers[0]._engine
    whole = engine.run

    def wait(batch: Batch, *options: object) -> list[Outcome]:
        assert opened.wait(PATIENCE_SECONDS)
        return whole(batch)

    monkeypatch.setattr(engine, "run", wait)
    return opened


@contextlib.asynccontextmanager
async def full(running: RunningServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Any]]:
    """Every place of a model is taken within the block; afterwards the calls end."""
    opened = hold_engine(running, monkeypatch)
    calls = [running.generation.Generate(REQUEST) for _ in range(NUM_PLACES)]
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding < NUM_PLACES:
                await asyncio.sleep(0.001)
        yield calls
    finally:
        opened.set()


def num_rejected(running: RunningServer, reason: str, model: str = "tiny") -> float:
    """Requests refused at admission, as the page says."""
    labels = {"model_name": model, "model_version": "1" if model else "", "reason": reason}
    value = running.metrics.registry.get_sample_value("seqserve_rejected_total", labels)
    return value or 0.0


def pushback_of(error: grpc.aio.AioRpcError) -> int:
    """Milliseconds that a refusal says to wait, in both places alike."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    milliseconds: int = retry.retry_delay.ToMilliseconds()
    assert trailers["grpc-retry-pushback-ms"] == str(milliseconds)
    return milliseconds


async def refuse(running: RunningServer) -> grpc.aio.AioRpcError:
    """What a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.generation.Generate(REQUEST)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return caught.value


def percentile_99(seconds: list[float]) -> float:
    """What 99 of 100 do not exceed."""
    return statistics.quantiles(seconds, n=100)[-1]


async def test_refusal_takes_milliseconds_and_says_when_to_come_back(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each beyond the limit is counted; those within it are answered.

    Of 300 refusals, 297 take less than 20 ms, or no longer than calls that ask the model for
    nothing take at the same time: the machine may be busy with something else.
    """
    num_refused = 300
    refusals, others = list[float](), list[float]()
    async with serving(**FULL) as running:
        async with full(running, monkeypatch) as calls:
            for _ in range(num_refused):
                started_at = time.monotonic()
                error = await refuse(running)
                refusals.append(time.monotonic() - started_at)
                assert pushback_of(error) == 1000  # nothing has been done yet
                started_at = time.monotonic()
                await running.model.ListModels(model_pb2.ListModelsRequest())
                others.append(time.monotonic() - started_at)
            assert num_rejected(running, "queue_full") == num_refused
            assert running.num_outstanding == NUM_PLACES
        replies = await asyncio.gather(*calls)
        assert num_rejected(running, "queue_full") == num_refused
    assert [len(reply.results) for reply in replies] == [1] * NUM_PLACES
    assert statistics.median(refusals) < 0.02
    assert percentile_99(refusals) < max(0.02, 2 * percentile_99(others))


async def test_time_to_come_back_is_that_of_the_measured_rate(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One input takes 60 ms at least: whoever is refused beside eight comes back after one more."""
    step_seconds = 0.02
    request = generation_pb2.GenerateRequest(
        model_name="tiny", inputs=[source([5, 6, 7, 1], min_new_tokens=1, max_new_tokens=2)]
    )
    async with serving(**FULL, max_batch_size=1, max_num_beams=1) as running:
        engine = running.registry.find("tiny", "", None).lanes.workers[0]._engine
        whole = engine.run

        def run(batch: Batch, *options: object) -> list[Outcome]:
            time.sleep(step_seconds)
            return whole(batch)

        monkeypatch.setattr(engine, "run", run)
        started_at = time.monotonic()
        await asyncio.gather(*(running.generation.Generate(request) for _ in range(NUM_PLACES)))
        measured = (time.monotonic() - started_at) / NUM_PLACES
        calls = [running.generation.Generate(request) for _ in range(NUM_PLACES)]
        while running.num_outstanding < NUM_PLACES:
            await asyncio.sleep(0)
        times = [pushback_of(await refuse(running)) / 1000 for _ in range(3)]
        await asyncio.gather(*calls)
    assert measured > 3 * step_seconds
    assert times == sorted(times)
    for place, seconds in enumerate(times, start=1):
        assert place * measured / 2 < seconds < place * measured * 2


async def test_every_wave_finds_as_many_places(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times as many calls as there are places, three times: refusals cost no place."""
    accepted = []
    async with serving(**FULL) as running:
        for _ in range(3):
            with monkeypatch.context() as patch:
                opened = hold_engine(running, patch)
                before = num_rejected(running, "queue_full")
                calls = [running.generation.Generate(REQUEST) for _ in range(3 * NUM_PLACES)]
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while num_rejected(running, "queue_full") < before + 2 * NUM_PLACES:
                        await asyncio.sleep(0.001)
                opened.set()
                ends = await asyncio.gather(*calls, return_exceptions=True)
            accepted.append(sum(isinstance(end, generation_pb2.GenerateResponse) for end in ends))
            codes = {end.code().name for end in ends if isinstance(end, grpc.aio.AioRpcError)}
            assert codes == {"RESOURCE_EXHAUSTED"}
            assert running.num_outstanding == 0
    assert accepted == [NUM_PLACES] * 3


async def test_health_answers_while_everything_is_taken(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SERVING within a second on both ports, while all places are held and more calls come."""
    async with serving(**FULL) as running:
        async with full(running, monkeypatch) as calls:
            is_over = False

            async def flood() -> int:
                num_refused = 0
                while not is_over:
                    await refuse(running)
                    num_refused += 1
                return num_refused

            floods = [asyncio.create_task(flood()) for _ in range(16)]
            for port in (running.ports.grpc, running.ports.health):
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                    stub = health_pb2_grpc.HealthStub(channel)
                    for service in ("", "seqserve.v1.GenerationService"):
                        reply = await stub.Check(
                            health_pb2.HealthCheckRequest(service=service), timeout=1.0
                        )
                        assert reply.status == health_pb2.HealthCheckResponse.SERVING
            is_over = True
            assert all(num_refused > 0 for num_refused in await asyncio.gather(*floods))
        await asyncio.gather(*calls)


async def test_tokens_are_bounded_beside_inputs(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places for inputs are left, but not for their tokens; alone too many are never taken."""
    async with serving(max_outstanding_tokens=10) as running:
        opened = hold_engine(running, monkeypatch)
        call = running.generation.Generate(
            generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([5] * 8)])
        )
        tokens = running.registry.find("tiny", "", None).token_admission
        async with asyncio.timeout(PATIENCE_SECONDS):
            while tokens.num_outstanding < 8:
                await asyncio.sleep(0.001)
        error = await refuse(running)
        assert error.details() == (
            "8 tokens are being worked on and 4 more would exceed the limit of 10; try again later"
        )
        assert pushback_of(error) == 1000
        assert num_rejected(running, "tokens_full") == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.Generate(
                generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([5] * 6)] * 2)
            )
        assert status_of(caught.value) == (
            "INVALID_ARGUMENT: a request must have at most 10 tokens in all "
            "(max_outstanding_tokens), but has 12; send fewer or shorter inputs"
        )
        opened.set()
        assert len((await call).results) == 1
        assert len((await running.generation.Generate(REQUEST)).results) == 1
        assert (tokens.num_outstanding, running.num_outstanding) == (0, 0)


async def test_bytes_of_messages_are_bounded_for_the_whole_server(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all models and methods together; a message of a stream is refused by itself."""
    text = "a " * 300
    large = generation_pb2.GenerateRequest(
        model_name="tiny", inputs=[generation_pb2.GenerateInput(text=text)], truncate=True
    )
    limits = {"max_outstanding_bytes": 1100, "max_message_bytes": 1024}
    async with serving(**limits) as running:
        opened = hold_engine(running, monkeypatch)
        call = running.generation.Generate(large)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not running.num_outstanding:
                await asyncio.sleep(0.001)
        embed = encoding_pb2.EmbedRequest(inputs=[text], truncate=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.encoding.Embed(embed)
        assert status_of(caught.value) == (
            f"RESOURCE_EXHAUSTED: {large.ByteSize()} bytes of messages are being worked on and "
            f"{embed.ByteSize()} more would exceed the limit of 1100; try again later"
        )
        pushback_of(caught.value)
        item = encoding_pb2.EmbedStreamRequest(request=embed)
        (answer,) = [one async for one in running.encoding.EmbedStream(iter([item]))]
        assert answer.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert num_rejected(running, "bytes_full", "") == 2
        small = encoding_pb2.EmbedRequest(inputs=["a"])
        assert len((await running.encoding.Embed(small)).embeddings) == 1
        opened.set()
        await call
        assert len((await running.encoding.Embed(embed)).embeddings) == 1


async def test_polite_caller_is_answered_beside_a_greedy_one(serving: MakeServer) -> None:
    """Of 100 of its calls, 99 take less than an eighth of what a call of the greedy one takes.

    Both ask for the same inputs, one at a time and 512 at a time; first come, first served would
    have them take equally long.
    """
    one = source([9, 8, 7, 6, 5, 1], min_new_tokens=30, max_new_tokens=30)

    async def generate(caller: str, num_inputs: int) -> float:
        started_at = time.monotonic()
        request = generation_pb2.GenerateRequest(model_name="tiny", inputs=[one] * num_inputs)
        await running.generation.Generate(request, metadata=(("seqserve-caller", caller),))
        return time.monotonic() - started_at

    async with serving(max_batch_size=4, max_num_beams=4) as running:
        greedy_seconds: list[float] = []

        async def be_greedy() -> None:
            while True:
                greedy_seconds.append(await generate("greedy", 256))

        greedy = [asyncio.create_task(be_greedy()) for _ in range(2)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding < 512:
                await asyncio.sleep(0.001)
        polite_seconds = sorted([await generate("polite", 1) for _ in range(100)])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(greedy_seconds) < 2:
                await asyncio.sleep(0.01)
        for task in greedy:
            task.cancel()
        await asyncio.gather(*greedy, return_exceptions=True)
    assert polite_seconds[98] < min(greedy_seconds) / 8
