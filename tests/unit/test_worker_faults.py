"""Faults under the worker: every submission is answered exactly once, whatever happens."""

import asyncio
import collections
import random
from typing import Any

import pytest
import structlog

from fakes import EOS, FakeClock, FakeEngine, make_submission, run_plainly
from running_worker import PATIENCE_SECONDS, arrival, is_alive, make_worker, outcomes, running
from seqserve import scheduler
from seqserve.batch import Batch, Outcome
from seqserve.errors import EngineError, UnavailableError
from seqserve.intake import Intake
from seqserve.metrics import Metrics
from seqserve.search_state import Candidate
from seqserve.sequence import Generation


def read_load(metrics: Metrics) -> list[float | None]:
    """The gauges: waiting, running, live rows."""
    labels = {"model_name": "fake", "model_version": "1"}
    names = ("waiting_sequences", "running_sequences", "live_rows")
    return [metrics.registry.get_sample_value(f"seqserve_{name}", labels) for name in names]


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


async def test_engine_that_keeps_failing_is_reported_once() -> None:
    """After so many failed steps in a row; a step that succeeds starts the count again.

    The worker goes on, so that everybody is answered while the server drains. Its log lines name
    the calls.
    """
    engine = FakeEngine()
    reports: list[str] = []
    num_calls = 0

    def fail(batch: Batch) -> list[Outcome]:
        raise RuntimeError("device lost")

    async def call() -> None:
        nonlocal num_calls
        num_calls += 1
        sequence, future = make_submission(max_new_tokens=1)
        sequence.request_id = f"call-{num_calls}"
        worker.submit([sequence])
        await outcomes([future])

    with structlog.testing.capture_logs() as logs:
        async with running(engine, lambda: reports.append("lost"), max_failed_steps=3) as worker:
            for scripts in ((fail, fail, run_plainly), (fail, fail, fail, fail, fail)):
                for engine.script in scripts:
                    await call()
            assert worker.is_alive
    assert reports == ["lost"]
    story = [entry.get("request_ids", entry["event"]) for entry in logs]
    told = [[f"call-{number}"] for number in (1, 2, 4, 5, 6, 7, 8)]
    assert story == [*told[:5], "engine keeps failing", *told[5:]]


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


@pytest.mark.parametrize(
    ("place", "name"), [(scheduler, "place"), (Intake, "resize"), (Intake, "add")]
)
async def test_fault_between_queue_and_batch_answers_all(
    place: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who have left the queue and are in no batch yet hear of the end of the worker, too."""

    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    worker = make_worker(FakeEngine())
    monkeypatch.setattr(place, name, fail)
    pairs = [make_submission() for _ in range(3)]
    deaths: list[str] = []
    worker.start(asyncio.get_running_loop(), lambda: deaths.append("died"))
    worker.submit([sequence for sequence, _ in pairs])
    answers = await outcomes([future for _, future in pairs])
    assert [type(answer) for answer in answers] == [UnavailableError] * 3
    await asyncio.wait_for(worker.join(), PATIENCE_SECONDS)
    await asyncio.sleep(0)
    assert deaths == ["died"]
