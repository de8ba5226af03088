"""The worker: every submission is answered exactly once, whatever happens."""

import asyncio
import collections
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import structlog

from fakes import EOS, FakeClock, FakeEngine, make_submission, run_plainly
from seqserve.cache_budget import CacheBudget, CacheExtent
from seqserve.errors import DeadlineError, EngineError, UnavailableError
from seqserve.intake import SchedulerLimits
from seqserve.metrics import Metrics, ModelMetrics
from seqserve.sequence import Batch, Candidate, EmbeddingVector, Generation, Outcome
from seqserve.worker import Worker

BUDGET = CacheBudget(
    max_bytes=10_000,
    max_rows=8,
    target_position_bytes=1,
    source_position_bytes=1,
    num_tensors=1,
)
PATIENCE_SECONDS = 20.0
"""Far beyond what any test takes: only a worker that forgot someone gets here."""


def make_worker(engine: FakeEngine, metrics: Metrics | None = None, **settings: Any) -> Worker:
    """A worker of at most 8 rows, not started."""
    model_metrics = ModelMetrics(metrics or Metrics(), "fake", "1")
    return Worker(engine, SchedulerLimits(8, 64), model_metrics, name="fake/1", **settings)


def read_load(metrics: Metrics) -> list[float | None]:
    """The gauges: waiting, running, live rows."""
    labels = {"model_name": "fake", "model_version": "1"}
    names = ("waiting_sequences", "running_sequences", "live_rows")
    return [metrics.registry.get_sample_value(f"seqserve_{name}", labels) for name in names]


def is_alive(worker: Worker) -> bool:
    """Whether it takes sequences."""
    return worker._thread.is_alive() and not worker._is_closed


@contextlib.asynccontextmanager
async def running(
    engine: FakeEngine, on_death: Callable[[], None] | None = None, **settings: Any
) -> AsyncIterator[Worker]:
    """A started worker that has ended, without a fault on the loop, when the block is left."""
    worker = make_worker(engine, **settings)
    loop = asyncio.get_running_loop()
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    worker.start(loop, on_death)
    try:
        yield worker
    finally:
        engine.gate.set()
        worker.close()
        await asyncio.wait_for(worker.join(), PATIENCE_SECONDS)
        await asyncio.sleep(0)  # what the worker handed over last
        assert not is_alive(worker)
        assert faults == []


async def outcomes(futures: list[asyncio.Future[Any]]) -> list[Any]:
    """The answers and errors of futures."""
    gathered = asyncio.gather(*futures, return_exceptions=True)
    return await asyncio.wait_for(gathered, PATIENCE_SECONDS)


async def arrival(engine: FakeEngine) -> None:
    """Waits until the engine was given a batch."""
    assert await asyncio.to_thread(engine.arrived.wait, PATIENCE_SECONDS)


async def test_submission_is_answered() -> None:
    """A sequence goes through encode and decode and comes back as its hypothesis."""
    async with running(FakeEngine()) as worker:
        sequence, future = make_submission(max_new_tokens=3)
        worker.submit([sequence])
        (answer,) = await outcomes([future])
    assert isinstance(answer, Generation)
    assert [item.tokens for item in answer.hypotheses] == [(10, 11, 12)]


async def test_embedding_is_answered() -> None:
    """A sequence to embed comes back as its vector."""
    async with running(FakeEngine("embed")) as worker:
        sequence, future = make_submission(source=range(5), is_embedded=True)
        worker.submit([sequence])
        (answer,) = await outcomes([future])
    assert isinstance(answer, EmbeddingVector)
    assert answer.values.tolist() == [5.0]


class FaultyEngine(FakeEngine):
    """Ends, fails and cancels at random, from a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self.script = self._run

    def _run(self, batch: Batch) -> list[Outcome]:
        if self._random.random() < 0.06:
            raise RuntimeError("the whole batch")
        results = run_plainly(batch)
        for index, sequence in enumerate(batch.sequences):
            if self._random.random() < 0.04:
                results[index] = EngineError("one sequence")
            elif batch.phase == "decode" and sequence.num_rows == 1:
                token = self._random.choice([EOS, 10, 11, 12])
                results[index] = [Candidate(0, token, 0.0, 0.0)]
        return results


@pytest.mark.parametrize("seed", range(5))
async def test_everyone_is_answered_once_under_faults(seed: int) -> None:
    """With faults, cancels and deadlines at random, no caller waits for ever or hears twice."""
    chance = random.Random(seed)
    clock = FakeClock()
    answered: collections.Counter[int] = collections.Counter()
    kinds: collections.Counter[str] = collections.Counter()
    async with running(FaultyEngine(seed), clock=clock) as worker:

        async def call(index: int) -> None:
            sequence, future = make_submission(
                source=range(1 + index % 7),
                num_beams=chance.choice([1, 1, 2, 4]),
                max_new_tokens=chance.randint(1, 6),
                deadline=clock.now + chance.choice([2.0, 1000.0, 1000.0]),
            )
            worker.submit([sequence])
            clock.advance(0.25)
            if chance.random() < 0.2:
                await asyncio.sleep(0)
                future.cancel()
            (answer,) = await outcomes([future])
            answered[index] += 1
            kinds[type(answer).__name__] += 1

        await asyncio.gather(*(call(index) for index in range(80)))
        assert is_alive(worker)
    assert answered == dict.fromkeys(range(80), 1)
    assert set(kinds) <= {"Generation", "EngineError", "DeadlineError", "CancelledError"}
    assert kinds["Generation"] > 0
    assert kinds["EngineError"] > 0


async def test_fault_of_a_batch_names_no_detail_and_the_worker_goes_on() -> None:
    """A raising engine fails its batch with an EngineError; the next call succeeds."""
    engine = FakeEngine()

    def fail(batch: Batch) -> list[Outcome]:
        raise RuntimeError("secret path")

    async with running(engine) as worker:
        engine.script = fail
        sequence, future = make_submission()
        worker.submit([sequence])
        (failed,) = await outcomes([future])
        engine.script = run_plainly
        sequence, future = make_submission()
        worker.submit([sequence])
        (answer,) = await outcomes([future])
    assert repr(failed) == "EngineError('RuntimeError in phase encode')"
    assert isinstance(answer, Generation)


def one_too_few(batch: Batch) -> list[Outcome]:
    """An engine that breaks its contract."""
    return run_plainly(batch)[:-1]


@pytest.mark.parametrize("phase", ["encode", "decode", "embed"])
async def test_fault_outside_the_engine_fails_everything(phase: str) -> None:
    """Taken, running, waiting and unseen sequences all hear that the worker was lost.

    Nothing counts as waiting or running afterwards.
    """
    engine = FakeEngine("embed" if phase == "embed" else "encode")
    dead = asyncio.Event()
    metrics = Metrics()

    def break_later(batch: Batch) -> list[Outcome]:
        return one_too_few(batch) if batch.phase == phase else run_plainly(batch)

    engine.script = break_later
    engine.gate.clear()
    async with running(engine, dead.set, metrics=metrics) as worker:
        submissions = [make_submission(is_embedded=phase == "embed") for _ in range(20)]
        worker.submit([sequence for sequence, _ in submissions[:12]])
        await arrival(engine)
        worker.submit([sequence for sequence, _ in submissions[12:]])
        engine.gate.set()
        answers = await outcomes([future for _, future in submissions])
        await asyncio.wait_for(dead.wait(), PATIENCE_SECONDS)
        assert not is_alive(worker)
        with pytest.raises(UnavailableError, match="worker was lost"):
            worker.submit([make_submission()[0]])
    assert {type(answer) for answer in answers} == {UnavailableError}
    assert read_load(metrics) == [0, 0, 0]


async def test_rows_that_are_mixed_up_end_the_worker() -> None:
    """Nobody gets the tokens of another caller; everybody hears that the worker was lost."""
    engine = FakeEngine()
    dead = asyncio.Event()

    def mix_up(batch: Batch) -> list[Outcome]:
        if batch.phase == "decode":
            batch.sequences[0].rows[0] = batch.sequences[1].rows[0]
        return run_plainly(batch)

    engine.script = mix_up
    async with running(engine, dead.set) as worker:
        # The last one leaves at once: rows are looked at when they change hands.
        submissions = [make_submission(max_new_tokens=count) for count in (3, 3, 1)]
        worker.submit([sequence for sequence, _ in submissions])
        answers = await outcomes([future for _, future in submissions])
        await asyncio.wait_for(dead.wait(), PATIENCE_SECONDS)
    assert {type(answer) for answer in answers[:2]} == {UnavailableError}


async def test_close_answers_what_was_submitted() -> None:
    """After ``close`` nothing is taken, but what was submitted is answered before the end."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running(engine) as worker:
        submissions = [make_submission() for _ in range(20)]
        worker.submit([sequence for sequence, _ in submissions])
        await arrival(engine)
        worker.close()
        worker.close()
        with pytest.raises(UnavailableError, match="being shut down"):
            worker.submit([make_submission()[0]])
        engine.gate.set()
        await asyncio.wait_for(worker.join(), PATIENCE_SECONDS)
        answers = await outcomes([future for _, future in submissions])
    assert {type(answer) for answer in answers} == {Generation}


async def test_what_came_before_the_start_is_answered() -> None:
    """A worker that was closed before its thread looked at the inbox still answers it."""
    worker = make_worker(FakeEngine())
    sequence, future = make_submission()
    worker.submit([sequence])
    worker.close()
    worker.start(asyncio.get_running_loop())
    (answer,) = await outcomes([future])
    await asyncio.wait_for(worker.join(), PATIENCE_SECONDS)
    assert isinstance(answer, Generation)


async def test_idle_worker_ends_when_closed() -> None:
    """A worker that waits for work wakes up to end."""
    async with running(FakeEngine()) as worker:
        assert is_alive(worker)
        worker.close()
        await asyncio.wait_for(worker.join(), PATIENCE_SECONDS)


async def test_cancelled_sequence_is_not_run() -> None:
    """A sequence whose caller has gone before its turn never reaches the engine."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running(engine) as worker:
        first, first_future = make_submission()
        worker.submit([first])
        await arrival(engine)
        gone, gone_future = make_submission()
        kept, kept_future = make_submission()
        worker.submit([gone, kept])
        gone_future.cancel()
        engine.gate.set()
        await outcomes([first_future, kept_future])
    assert engine.seen == [first, kept]


async def test_overdue_sequence_is_not_run() -> None:
    """A sequence whose deadline passed while it waited fails with a DeadlineError, unrun."""
    engine = FakeEngine()
    clock = FakeClock()
    engine.gate.clear()
    async with running(engine, clock=clock) as worker:
        first, first_future = make_submission()
        worker.submit([first])
        await arrival(engine)
        late, late_future = make_submission(deadline=5.0)
        worker.submit([late])
        clock.advance(5.0)
        engine.gate.set()
        _, answer = await outcomes([first_future, late_future])
    assert isinstance(answer, DeadlineError)
    assert engine.seen == [first]


async def test_streamed_tokens_come_in_order_before_the_answer() -> None:
    """The pieces are the answer's tokens, and all of them arrive before it does."""
    story: list[Any] = []
    async with running(FakeEngine()) as worker:
        sequence, future = make_submission(max_new_tokens=5, on_tokens=story.append)
        future.add_done_callback(lambda _: story.append("done"))
        worker.submit([sequence])
        (answer,) = await outcomes([future])
    assert story == [[10], [11], [12], [13], [14], "done"]
    assert answer.hypotheses[0].tokens == (10, 11, 12, 13, 14)


async def test_nothing_is_streamed_to_a_caller_who_left() -> None:
    """A cancel in the middle of a step wins over the tokens and the answer of that step."""
    engine = FakeEngine()

    def shut_after_encode(batch: Batch) -> list[Outcome]:
        if batch.phase == "encode":
            engine.gate.clear()
        return run_plainly(batch)

    engine.script = shut_after_encode
    story: list[list[int]] = []
    async with running(engine) as worker:
        sequence, future = make_submission(max_new_tokens=1, on_tokens=story.append)
        worker.submit([sequence])
        while engine.batches != [("encode", 1), ("decode", 1)]:
            await asyncio.sleep(0)
        future.cancel()
        engine.gate.set()
    assert story == []


async def test_stream_that_raises_fails_alone() -> None:
    """Its caller gets an error that names no detail; those behind it in the batch their answers."""

    def explode(tokens: list[int]) -> None:
        raise RuntimeError("secret path")

    engine = FakeEngine()
    engine.gate.clear()
    story: list[list[int]] = []
    async with running(engine) as worker:
        broken, broken_future = make_submission(max_new_tokens=2, on_tokens=explode)
        other, other_future = make_submission(max_new_tokens=2, on_tokens=story.append)
        plain, plain_future = make_submission(max_new_tokens=2)
        worker.submit([broken, other, plain])
        engine.gate.set()
        with structlog.testing.capture_logs() as logs:
            failed, *answers = await outcomes([broken_future, other_future, plain_future])
        assert is_alive(worker)
    assert repr(failed) == "EngineError('RuntimeError in on_tokens')"
    assert [type(answer) for answer in answers] == [Generation, Generation]
    assert story == [[10], [11]]
    assert [(entry["event"], entry["model"]) for entry in logs] == [("stream failed", "fake/1")]


async def test_stream_that_cancels_its_sequence_harms_nobody() -> None:
    """A caller may leave while it is being told; its last tokens and its answer find no future."""
    async with running(FakeEngine()) as worker:
        leaving, leaving_future = make_submission(max_new_tokens=1)

        def leave(tokens: list[int]) -> None:
            leaving_future.cancel()

        leaving.on_tokens = leave
        other, other_future = make_submission(max_new_tokens=1)
        worker.submit([leaving, other])
        left, answer = await outcomes([leaving_future, other_future])
    assert isinstance(left, asyncio.CancelledError)
    assert isinstance(answer, Generation)


async def test_sequence_too_wide_for_a_batch_fails_alone() -> None:
    """A sequence that no batch could hold is answered, and the worker lives on."""
    async with running(FakeEngine()) as worker:
        wide, wide_future = make_submission(num_beams=9)
        other, other_future = make_submission()
        worker.submit([wide, other])
        failed, answer = await outcomes([wide_future, other_future])
        assert is_alive(worker)
    assert repr(failed) == "EngineError('9 rows exceed 8')"
    assert isinstance(answer, Generation)


async def test_many_tasks_may_submit() -> None:
    """Concurrent callers each get the answer to their own sequence."""
    async with running(FakeEngine("embed")) as worker:

        async def call(length: int) -> float:
            sequence, future = make_submission(source=range(length), is_embedded=True)
            worker.submit([sequence])
            answer = await asyncio.wait_for(future, PATIENCE_SECONDS)
            return float(answer.values[0])

        found = await asyncio.gather(*(call(length) for length in range(1, 60)))
    assert found == list(range(1, 60))


async def test_arrivals_join_running_sequences() -> None:
    """A sequence that comes while another decodes shares its decode steps."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running(engine) as worker:
        first, first_future = make_submission(max_new_tokens=6)
        worker.submit([first])
        await arrival(engine)
        second, second_future = make_submission(max_new_tokens=2)
        worker.submit([second])
        engine.gate.set()
        await outcomes([first_future, second_future])
    assert engine.batches == [
        ("encode", 1),
        ("decode", 1),
        ("encode", 1),
        *[("decode", 2)] * 2,
        *[("decode", 1)] * 3,
    ]


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


async def test_deadline_that_cannot_be_met_is_answered_at_once() -> None:
    """Once the pace is known, an input that cannot be in time is not computed."""
    engine = FakeEngine()
    clock = FakeClock()

    def take_time(batch: Batch) -> list[Outcome]:
        clock.advance(1.0)
        return run_plainly(batch)

    engine.script = take_time
    async with running(engine, clock=clock) as worker:
        first, first_future = make_submission(max_new_tokens=2)
        worker.submit([first])
        await outcomes([first_future])
        late, late_future = make_submission(max_new_tokens=9, min_new_tokens=5, deadline=8.0)
        worker.submit([late])
        (answer,) = await outcomes([late_future])
    assert isinstance(answer, DeadlineError)
    assert "takes 6.000 seconds at least, and 5.000 are left" in str(answer)
    assert engine.seen == [first]


async def test_worker_whose_gauges_fail_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it dies of may be what it would do before it answers."""
    deaths: list[str] = []
    worker = make_worker(FakeEngine())
    monkeypatch.setattr(worker, "_observe_load", lambda: 1 // 0)
    sequence, future = make_submission()
    worker.submit([sequence])
    worker.start(asyncio.get_running_loop(), lambda: deaths.append("lost"))
    (error,) = await outcomes([future])
    assert isinstance(error, UnavailableError)
    await asyncio.wait_for(worker.join(), PATIENCE_SECONDS)
    await asyncio.sleep(0)
    assert deaths == ["lost"]
    assert not worker.is_alive
