"""Every accepted request is answered exactly once, whatever callers and the engine do."""

import asyncio
import random
import threading
import time

import grpc
import pytest

from seqserve.batch import Batch, Outcome
from seqserve.v1 import generation_pb2
from serving import MakeServer, RunningServer, source


def assert_idle(running: RunningServer) -> None:
    """All rows are free, nothing waits, no place is held."""
    worker = running.registry.find("tiny", "", None).lanes.workers[0]
    scheduler = worker._scheduler
    scheduler.check()
    assert repr(scheduler) == "Scheduler(waiting=0, running=0, free_rows=256)"
    assert running.num_outstanding == 0


def count_codes(running: RunningServer) -> dict[str, float]:
    """Answered calls by their code."""
    codes = ("OK", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE")
    return {code: count for code in codes if (count := running.count_calls(code))}


async def settle(running: RunningServer) -> None:
    """Waits until the worker has dropped what was abandoned."""
    worker = running.registry.find("tiny", "", None).lanes.workers[0]
    async with asyncio.timeout(10):
        while worker._scheduler.has_work or running.num_outstanding:
            await asyncio.sleep(0.005)


async def test_200_clients_with_random_cancellations(serving: MakeServer) -> None:
    """Each of 200 concurrent calls ends once: a right answer or its own cancellation."""
    rng = random.Random(5)
    plans = []
    for index in range(200):
        tokens = [rng.randrange(4, 30) for _ in range(rng.randrange(1, 30))]
        options = {"num_beams": 4} if index % 3 == 0 else {}
        one = source([*tokens, 1], max_new_tokens=rng.randrange(8, 32), **options)
        plans.append((one, rng.uniform(0, 0.2) if index % 2 else None, index % 5 == 0))

    async with serving() as running:

        async def call(
            one: generation_pb2.GenerateInput, patience: float | None, is_stream: bool
        ) -> generation_pb2.Hypothesis | str:
            if is_stream:
                stream = running.generation.GenerateStream(
                    generation_pb2.GenerateStreamRequest(model_name="tiny", input=one)
                )
                if patience is not None:
                    asyncio.get_running_loop().call_later(patience, stream.cancel)
                try:
                    messages = [message async for message in stream]
                except asyncio.CancelledError:
                    return "cancelled"
                return messages[-1].result.hypotheses[0]
            unary = running.generation.Generate(
                generation_pb2.GenerateRequest(model_name="tiny", inputs=[one])
            )
            if patience is not None:
                asyncio.get_running_loop().call_later(patience, unary.cancel)
            try:
                return (await unary).results[0].hypotheses[0]
            except asyncio.CancelledError:
                return "cancelled"

        answers = await asyncio.gather(*(call(*plan) for plan in plans))
        await settle(running)
        assert_idle(running)
        expected = await running.generation.Generate(
            generation_pb2.GenerateRequest(model_name="tiny", inputs=[one for one, _, _ in plans])
        )
    num_answered = 0
    for answer, (_, patience, _), result in zip(answers, plans, expected.results, strict=True):
        if answer == "cancelled":
            assert patience is not None
        else:
            num_answered += 1
            assert answer == result.hypotheses[0]
    assert num_answered >= 100


async def test_engine_fault_fails_its_batch_and_the_next_request_succeeds(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the computation is INTERNAL for those in it; slots come free."""
    async with serving() as running:
        engine = running.registry.find("tiny", "", None).lanes.workers[0]._engine
        request = generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([5, 6, 1])])
        whole = engine.run
        calls = 0

        def run(batch: object, *options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise RuntimeError("planted")
            return whole(batch)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(engine, "run", run)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.generation.Generate(request)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        await settle(running)
        assert_idle(running)
        assert (await running.generation.Generate(request)).results


async def test_deadline_reaches_the_running_batch(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call past its deadline is DEADLINE_EXCEEDED and leaves the batch; the others finish."""
    async with serving(max_request_seconds=0.2) as running:
        engine = running.registry.find("tiny", "", None).lanes.workers[0]._engine
        whole = engine.run

        def slow(batch: object, *options: object) -> object:
            time.sleep(0.03)  # in the worker thread
            return whole(batch)  # type: ignore[arg-type]

        monkeypatch.setattr(engine, "run", slow)
        long_call = running.generation.Generate(
            generation_pb2.GenerateRequest(
                model_name="tiny", inputs=[source([7] * 20, max_new_tokens=32)]
            )
        )
        short_call = running.generation.Generate(
            generation_pb2.GenerateRequest(
                model_name="tiny", inputs=[source([7] * 20, max_new_tokens=2)]
            )
        )
        assert (await short_call).results
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await long_call
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await settle(running)
        assert_idle(running)


async def test_passed_deadlines_and_cancels_are_told_apart(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics and the log have what the caller was told, also where gRPC ended the call."""
    opened = threading.Event()
    async with serving() as running:
        engine = running.registry.find("tiny", "", None).lanes.workers[0]._engine
        whole = engine.run

        def wait(batch: Batch, *options: object) -> list[Outcome]:
            assert opened.wait(20)
            return whole(batch)

        monkeypatch.setattr(engine, "run", wait)
        request = generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([5, 6, 1])])
        late = [running.generation.Generate(request, timeout=0.1) for _ in range(5)]
        leaving = running.generation.Generate(request, timeout=30)
        ends = await asyncio.gather(*late, return_exceptions=True)
        leaving.cancel()
        codes: dict[str, float] = {}
        async with asyncio.timeout(10):
            while sum(codes.values()) < 6:
                await asyncio.sleep(0.005)
                codes = count_codes(running)
        opened.set()
        await settle(running)
    assert {end.code().name for end in ends if isinstance(end, grpc.aio.AioRpcError)} == {
        "DEADLINE_EXCEEDED"
    }
    assert codes == {"DEADLINE_EXCEEDED": 5, "CANCELLED": 1}
