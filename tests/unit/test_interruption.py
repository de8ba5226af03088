"""Passes that nobody waits for: when they are ended, and what becomes of those beside them."""

from fakes import FakeEngine, make_submission, run_plainly
from running_worker import arrival, outcomes, running
from seqserve.batch import Batch, Outcome
from seqserve.errors import PassInterruptedError
from seqserve.interruption import Interruption
from seqserve.metrics import Metrics
from seqserve.sequence import Generation


async def test_a_pass_ends_with_its_last_caller() -> None:
    """While anybody waits it goes on."""
    (first, first_future), (last, last_future) = make_submission(), make_submission()
    interruption = Interruption()
    options = interruption.begin([first, last])
    first_future.cancel()
    interruption.look()
    assert not options.terminate
    last_future.cancel()
    interruption.look()
    assert options.terminate


async def test_a_caller_may_go_before_the_pass_begins() -> None:
    """Nobody looks after that."""
    sequence, future = make_submission()
    future.cancel()
    assert Interruption().begin([sequence]).terminate


async def test_a_pass_that_is_over_is_left_alone() -> None:
    """Whoever goes later ends nothing, also not the next one."""
    sequence, future = make_submission()
    interruption = Interruption()
    first = interruption.begin([sequence])
    interruption.end()
    future.cancel()
    interruption.look()
    assert not first.terminate


async def test_running_sequences_go_on_when_a_pass_is_ended() -> None:
    """Those it was for are counted as given up, not as a fault; rows they had are free."""
    metrics = Metrics()
    engine = FakeEngine()

    def run(batch: Batch) -> list[Outcome]:
        if batch.phase == "encode" and engine.options.terminate:
            raise PassInterruptedError("nobody waits")
        return run_plainly(batch)

    engine.script = run
    async with running(engine, metrics=metrics, max_failed_steps=1) as worker:
        kept, kept_future = make_submission(max_new_tokens=6)
        gone, gone_future = make_submission(max_new_tokens=6)
        worker.submit([kept])
        await arrival(engine)
        engine.gate.clear()
        engine.arrived.clear()
        worker.submit([gone])
        while gone not in engine.seen:
            engine.gate.set()
            engine.gate.clear()
            engine.arrived.clear()
            await arrival(engine)
        gone_future.cancel()
        worker.look_for_abandonment()
        engine.gate.set()
        (answer,) = await outcomes([kept_future])
    assert isinstance(answer, Generation)
    assert [one.tokens for one in answer.hypotheses] == [tuple(range(10, 16))]
    labels = {"model_name": "fake", "model_version": "1"}
    dropped = {**labels, "reason": "cancelled", "state": "running"}
    value = metrics.registry.get_sample_value
    assert value("seqserve_dropped_sequences_total", dropped) == 1
    assert value("seqserve_failed_steps_total", {**labels, "phase": "encode"}) is None
