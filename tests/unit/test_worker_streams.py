"""Streams of the worker: tokens come in order, and to nobody who left."""

import asyncio
from typing import Any

import structlog

from fakes import FakeEngine, make_submission, run_plainly
from running_worker import is_alive, outcomes, running
from seqserve.batch import Batch, Outcome
from seqserve.sequence import Generation


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
