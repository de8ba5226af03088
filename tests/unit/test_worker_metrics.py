"""What the worker measures: bytes of its cache, stalls of its decoding."""

import asyncio

import pytest

from fakes import FakeClock, FakeEngine, make_submission, run_plainly
from running_worker import PATIENCE_SECONDS, arrival, outcomes, running
from seqserve.batch import Batch, Outcome
from seqserve.cache_budget import CacheBudget, CacheExtent
from seqserve.metrics import Metrics

BUDGET = CacheBudget(
    max_bytes=10_000,
    max_rows=8,
    target_position_bytes=1,
    source_position_bytes=1,
    num_tensors=1,
)


async def test_memory_is_given_back_when_idle() -> None:
    """After a while without work the engine is told, and the next input works as the first."""
    engine = FakeEngine()
    metrics = Metrics()
    labels = {"model_name": "fake", "model_version": "1"}

    def reserved() -> float | None:
        return metrics.registry.get_sample_value("seqserve_cache_reserved_bytes", labels)

    async with running(engine, metrics=metrics, budget=BUDGET, idle_seconds=0.01) as worker:
        for _ in range(2):
            sequence, future = make_submission()
            worker.submit([sequence])
            await outcomes([future])
            assert await asyncio.to_thread(engine.released.wait, PATIENCE_SECONDS)
            engine.released.clear()
    assert reserved() == 0


async def test_bytes_of_the_cache_are_observed() -> None:
    """While sequences run: what is reserved, and what they have filled of it."""
    metrics = Metrics()
    seen: list[tuple[float | None, float | None]] = []
    labels = {"model_name": "fake", "model_version": "1"}
    clock = FakeClock()

    def look(batch: Batch) -> list[Outcome]:
        names = ("reserved_bytes", "used_bytes")
        found = [metrics.registry.get_sample_value(f"seqserve_cache_{n}", labels) for n in names]
        seen.append((found[0], found[1]))
        clock.advance(1.0)
        return run_plainly(batch)

    engine = FakeEngine()
    engine.script = look
    async with running(engine, metrics=metrics, budget=BUDGET, clock=clock) as worker:
        sequence, future = make_submission(source=range(4), max_new_tokens=3)
        worker.submit([sequence])
        await outcomes([future])
    full = float(BUDGET.extent_bytes(CacheExtent(8, 32, 32)))
    assert seen == [(full, 0.0), (full, 8.0), (full, 9.0), (full, 10.0)]


async def test_stall_is_the_time_between_decode_steps() -> None:
    """An encoder pass between two decode steps counts; the one before the first does not."""
    metrics = Metrics()
    clock = FakeClock()

    def take_time(batch: Batch) -> list[Outcome]:
        clock.advance(0.25 if batch.phase == "encode" else 0.001)
        return run_plainly(batch)

    engine = FakeEngine()
    engine.script = take_time
    engine.gate.clear()
    async with running(engine, metrics=metrics, clock=clock) as worker:
        first, first_future = make_submission(max_new_tokens=3)
        worker.submit([first])
        await arrival(engine)
        second, second_future = make_submission(max_new_tokens=3)
        worker.submit([second])
        engine.gate.set()
        await outcomes([first_future, second_future])
    labels = {"model_name": "fake", "model_version": "1"}
    total = metrics.registry.get_sample_value("seqserve_decode_stall_seconds_sum", labels)
    assert total == pytest.approx(0.25)
