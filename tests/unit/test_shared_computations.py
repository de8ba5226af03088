"""Computations that are shared: who waits for them, in whose line, and until when."""

import asyncio
import threading
import time
from typing import Any

import pytest

from fakes import run_plainly
from running_worker import PATIENCE_SECONDS, arrival, outcomes
from seqserve.batch import Batch, Outcome
from seqserve.errors import DeadlineError
from seqserve.sequence import Priority
from sharing_setting import future_of, make, sharing, tokens, wait_for


async def test_equal_inputs_of_one_call_are_computed_once() -> None:
    """Each is answered."""
    async with sharing(keeps=False) as setting:
        sequences = [make(source=[5, 6 + index % 3]) for index in range(12)]
        setting.answers.submit(sequences)
        found = await outcomes([future_of(one) for one in sequences])
        assert all(tokens(one) == (10, 11, 12) for one in found)
        assert setting.num_computed == 3
        assert setting.count("deduplicated") == 9


async def test_computation_goes_on_when_the_first_caller_leaves() -> None:
    """It is dropped only when nobody waits any more."""
    async with sharing() as setting:
        setting.close_gate()
        leader, follower = make(), make()
        setting.submit(leader, follower)
        await arrival(setting.engine)
        future_of(leader).cancel()
        await asyncio.sleep(0)
        setting.engine.gate.set()
        assert tokens(await wait_for(follower)) == (10, 11, 12)
        assert setting.num_computed == 1


async def test_computation_ends_when_nobody_waits() -> None:
    """What was encoded is not decoded to its end, and nothing is kept."""
    async with sharing() as setting:
        setting.close_gate()
        sequences = [make(max_new_tokens=500) for _ in range(3)]
        setting.submit(*sequences)
        await arrival(setting.engine)
        for sequence in sequences:
            future_of(sequence).cancel()
        await asyncio.sleep(0)
        setting.engine.gate.set()
        await setting.answer(make(source=[9]))
        assert len(setting.engine.batches) < 100
        assert setting.num_computed == 2
        assert len(setting.cache) == 1


@pytest.mark.parametrize("is_leader_late", [True, False])
async def test_each_has_its_own_deadline(is_leader_late: bool) -> None:
    """Whoever has less time is told so; who has more gets the answer of the one computation."""
    async with sharing() as setting:
        setting.close_gate()
        now = time.monotonic()
        deadlines = [now + 0.02, now + 60.0]
        if not is_leader_late:
            deadlines.reverse()
        sequences = [make(deadline=deadline) for deadline in deadlines]
        setting.submit(*sequences)
        late, patient = sequences if is_leader_late else sequences[::-1]
        with pytest.raises(DeadlineError, match=r"^the deadline passed before the work"):
            await wait_for(late)
        setting.engine.gate.set()
        assert tokens(await wait_for(patient)) == (10, 11, 12)
        assert setting.num_computed == 1


async def test_who_has_time_left_outlives_a_computation_that_has_none() -> None:
    """Where the worker was faster than the one who joined: it is computed by itself then."""
    async with sharing() as setting:
        setting.close_gate()
        leader, follower = make(deadline=time.monotonic() + 60.0), make()
        setting.submit(leader, follower)
        ((computation,),) = setting.answers._computations.values()
        computation.sequence.deadline = 0.0
        setting.engine.gate.set()
        with pytest.raises(DeadlineError):
            await wait_for(leader)
        assert tokens(await wait_for(follower)) == (10, 11, 12)
        assert setting.num_computed <= 2


@pytest.mark.parametrize(
    ("leader", "follower", "is_joined"),
    [
        ({}, {}, True),
        ({"caller": "a"}, {"caller": "b"}, False),
        ({"priority": Priority.LOW}, {"priority": Priority.HIGH}, False),
        ({"priority": Priority.HIGH}, {"priority": Priority.LOW}, True),
    ],
    ids=["same", "other caller", "more urgent", "less urgent"],
)
async def test_nobody_waits_in_the_line_of_another(
    leader: dict[str, Any], follower: dict[str, Any], is_joined: bool
) -> None:
    """A computation that waits is joined by those who would wait behind it anyway."""
    async with sharing(keeps=False) as setting:
        setting.close_gate()
        blocker = make(source=[1])
        setting.submit(blocker)
        await arrival(setting.engine)
        sequences = [make(**leader), make(**follower)]
        setting.submit(*sequences)
        ((*computations,),) = [
            found
            for found in setting.answers._computations.values()
            if blocker.source_tokens != found[0].sequence.source_tokens
        ]
        setting.engine.gate.set()
        found = await outcomes([future_of(one) for one in [blocker, *sequences]])
        assert all(tokens(one) == (10, 11, 12) for one in found)
        assert len(computations) == 2 - is_joined


async def test_single_input_does_not_wait_in_the_line_of_a_large_call() -> None:
    """Calls of one caller share its turns."""
    async with sharing(keeps=False) as setting:
        setting.close_gate()
        blocker = make(source=[1])
        setting.submit(blocker)
        await arrival(setting.engine)
        large = [make(source=[5, index]) for index in range(30)]
        setting.answers.submit(large)
        single = make(source=[5, 29])
        setting.submit(single)
        assert sum(map(len, setting.answers._computations.values())) == 1 + 30 + 1
        setting.engine.gate.set()
        await outcomes([future_of(one) for one in [blocker, single, *large]])


async def test_whichever_is_done_first_answers_all() -> None:
    """Turns that were taken beside it are given up."""
    is_told = threading.Event()

    def run_behind(batch: Batch) -> list[Outcome]:
        if batch.phase == "encode" and setting.num_computed > 10:
            assert is_told.wait(PATIENCE_SECONDS)
        return run_plainly(batch)

    async with sharing() as setting:
        setting.engine.script = run_behind
        setting.close_gate()
        blocker = make(source=[1])
        setting.submit(blocker)
        await arrival(setting.engine)
        # Eight rows run, so that the last of these wait until the first are done.
        many = [make(caller=f"caller {index}") for index in range(40)]
        setting.submit(*many)
        setting.engine.gate.set()
        found = await outcomes([future_of(one) for one in [blocker, *many]])
        assert all(tokens(one) == (10, 11, 12) for one in found)
        assert setting.count("deduplicated") == 39
        await asyncio.sleep(0)  # those who were answered have left
        is_told.set()
        await setting.answer(make(source=[2]))
        assert setting.num_computed < 20


async def test_computation_that_runs_is_joined_by_all() -> None:
    """It is never interrupted, so nobody is answered sooner by a turn of their own."""
    async with sharing(keeps=False) as setting:
        setting.close_gate()
        leader = make(caller="a", priority=Priority.LOW)
        setting.submit(leader)
        await arrival(setting.engine)
        follower = make(caller="b", priority=Priority.HIGH)
        setting.submit(follower)
        setting.engine.gate.set()
        first, second = await outcomes([future_of(leader), future_of(follower)])
        assert setting.num_computed == 1
        assert first.hypotheses == second.hypotheses
        assert follower.submitted_at <= follower.started_at <= follower.encoded_at
        spans = (second.timing.queue_seconds, second.timing.encode_seconds)
        assert spans[0] == 0.0
        assert sum(spans) + second.timing.decode_seconds == pytest.approx(
            follower.finished_at - follower.submitted_at
        )
        assert leader.finished_at == follower.finished_at
