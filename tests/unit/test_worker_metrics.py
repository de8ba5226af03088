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


def read(metrics: Metrics, name: str, **labels: str) -> float:
    """One number of the page; 0 for what was never counted."""
    labels |= {"model_name": "fake", "model_version": "1"}
    return metrics.registry.get_sample_value(f"seqserve_{name}", labels) or 0.0


async def test_queue_age_is_that_of_the_oldest_that_waits() -> None:
    """Also while the worker is stuck in a computation; 0 once nothing waits."""
    metrics = Metrics()
    clock = FakeClock(100.0)
    engine = FakeEngine()
    engine.gate.clear()
    async with running(engine, metrics=metrics, clock=clock) as worker:
        first, first_future = make_submission(submitted_at=90.0)
        worker.submit([first])
        await arrival(engine)
        assert read(metrics, "queue_age_seconds") == 0  # the first one is being encoded
        later = [make_submission(submitted_at=at) for at in (95.0, 97.0)]
        for sequence, _ in later:
            worker.submit([sequence])
        assert read(metrics, "queue_age_seconds") == 5
        clock.advance(2.0)
        assert read(metrics, "queue_age_seconds") == 7
        engine.gate.set()
        await outcomes([first_future, *(future for _, future in later)])
    assert read(metrics, "queue_age_seconds") == 0


async def test_padding_is_what_is_computed_beside_source_tokens() -> None:
    """Two sources of 3 and 5 tokens in one pass: 8 tokens, and 2 of padding."""
    metrics = Metrics()
    engine = FakeEngine("embed")
    async with running(engine, metrics=metrics) as worker:
        pair = [make_submission(source=range(length), is_embedded=True) for length in (3, 5)]
        worker.submit([sequence for sequence, _ in pair])
        await outcomes([future for _, future in pair])
    assert engine.batches == [("embed", 2)]
    assert read(metrics, "source_tokens_total") == 8
    assert read(metrics, "padding_tokens_total") == 2
    assert read(metrics, "step_rows_sum", phase="embed") == 2


async def test_abandoned_work_is_counted_by_reason() -> None:
    """One caller leaves while its sequence runs, the deadline of another passes before it does."""
    metrics = Metrics()
    clock = FakeClock()
    engine = FakeEngine()
    engine.gate.clear()
    async with running(engine, metrics=metrics, clock=clock) as worker:
        leaving, leaving_future = make_submission()
        worker.submit([leaving])
        await arrival(engine)
        late, late_future = make_submission(deadline=1.0)
        worker.submit([late])
        leaving_future.cancel()
        clock.advance(2.0)
        engine.gate.set()
        await outcomes([late_future])
    labels = {"reason": "cancelled", "state": "running"}
    assert read(metrics, "dropped_sequences_total", **labels) == 1
    labels = {"reason": "expired", "state": "waiting"}
    assert read(metrics, "dropped_sequences_total", **labels) == 1


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("num_prefix_tokens", [0, 2])
async def test_first_token_is_timed_from_the_arrival_of_the_call(
    num_prefix_tokens: int, is_streamed: bool
) -> None:
    """One second each for tokenizing, the encoder, tokens of the prefix and the first new one."""
    clock = FakeClock(10.0)

    def take_time(batch: Batch) -> list[Outcome]:
        clock.advance(1.0)
        return run_plainly(batch)

    engine = FakeEngine()
    engine.script = take_time
    async with running(engine, clock=clock) as worker:
        sequence, future = make_submission(
            max_new_tokens=3,
            submitted_at=10.0,
            target_prefix=tuple(range(10, 10 + num_prefix_tokens)),
            on_tokens=(lambda tokens: None) if is_streamed else None,
        )
        sequence.arrived_at = 9.0
        worker.submit([sequence])
        (answer,) = await outcomes([future])
    assert answer.timing.first_token_seconds == 3 + num_prefix_tokens
    assert answer.timing.decode_seconds == 3 + num_prefix_tokens
    assert (sequence.first_batch_rows, sequence.last_batch_rows) == (1, 1)
