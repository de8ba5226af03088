"""Equal inputs before several lanes: nobody waits for a computation that a busy lane has."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fakes import FakeEngine, make_sequence
from running_worker import PATIENCE_SECONDS, arrival, make_worker
from seqserve.lanes import Lanes
from seqserve.metrics import Metrics
from seqserve.model_metrics import ModelMetrics
from seqserve.sequence import Sequence
from seqserve.shared_answers import SharedAnswers
from seqserve.sharing import Sharing


def make(length: int) -> Sequence:
    """A text to embed; those of one length are equal."""
    future = asyncio.get_running_loop().create_future()
    sequence = make_sequence(range(length), future=future, is_embedded=True)
    sequence.sharing = Sharing()
    return sequence


async def answer(sequence: Sequence) -> None:
    """Waits for the answer of a sequence."""
    assert isinstance(sequence.future, asyncio.Future)
    await asyncio.wait_for(sequence.future, PATIENCE_SECONDS)


@contextlib.asynccontextmanager
async def busy_lanes() -> AsyncIterator[tuple[SharedAnswers, list[FakeEngine], list[Sequence]]]:
    """Two lanes that compute a text of 20 tokens and one of 30, until their gates are opened."""
    engines = [FakeEngine("embed"), FakeEngine("embed")]
    metrics = Metrics()
    lanes = Lanes([make_worker(engine, metrics, lane=lane) for lane, engine in enumerate(engines)])
    lanes.start(asyncio.get_running_loop())
    answers = SharedAnswers(lanes, ModelMetrics(metrics, "fake", "1"), None, deduplicates=True)
    blockers = [make(20), make(30)]
    for blocker, engine in zip(blockers, engines, strict=True):
        engine.gate.clear()
        answers.submit([blocker])
        await arrival(engine)
    yield answers, engines, blockers
    for engine in engines:
        engine.gate.set()
    for blocker in blockers:
        await answer(blocker)
    lanes.close()
    await asyncio.wait_for(lanes.join(), PATIENCE_SECONDS)


async def test_idle_lane_answers_what_waits_in_a_busy_one() -> None:
    """Both are answered by it: whichever is done first answers all."""
    async with busy_lanes() as (answers, engines, blockers):
        waiting, arriving = make(3), make(3)
        answers.submit([waiting])
        assert waiting.lane is None, "a copy is computed"
        engines[1].gate.set()
        await answer(blockers[1])
        answers.submit([arriving])
        await answer(arriving)
        await answer(waiting)
        assert not engines[0].gate.is_set()


async def test_lane_with_the_least_to_do_is_waited_in() -> None:
    """Where an input would go itself it waits for an equal one, also within one call."""
    async with busy_lanes() as (answers, engines, _):
        sequences = [make(3), make(3), make(3)]
        answers.submit(sequences[:1])
        answers.submit(sequences[1:])
        ((computation,),) = (
            found
            for found in answers._computations.values()
            if found[0].sequence.source_length == 3
        )
        assert computation.sequence.lane == 0
        for engine in engines:
            engine.gate.set()
        for sequence in sequences:
            await answer(sequence)
        assert sum(len(engine.seen) for engine in engines) == 3
