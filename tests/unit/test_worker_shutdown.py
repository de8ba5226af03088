"""The end of a worker: what was submitted before is answered."""

import asyncio

import pytest

from fakes import FakeEngine, make_submission
from running_worker import PATIENCE_SECONDS, arrival, is_alive, make_worker, outcomes, running
from seqserve.errors import UnavailableError
from seqserve.sequence import Generation


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
