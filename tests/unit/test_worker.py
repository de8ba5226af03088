"""The worker: every submission is answered exactly once."""

import asyncio

from fakes import FakeClock, FakeEngine, make_submission, run_plainly
from running_worker import PATIENCE_SECONDS, arrival, outcomes, running
from seqserve.batch import Batch, Outcome
from seqserve.errors import DeadlineError
from seqserve.sequence import EncoderOutput, Generation


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
    assert isinstance(answer, EncoderOutput)
    assert answer.values.tolist() == [5.0]


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
