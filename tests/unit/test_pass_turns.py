"""Turns of passes: one at a time, shared by callers, and lost by nobody who leaves."""

from __future__ import annotations

import asyncio
import random

import pytest

from seqserve.pass_turns import PassTurns
from seqserve.sequence import Priority


class Passes:
    """Passes that take turns, with the order in which they began."""

    def __init__(self) -> None:
        self.turns = PassTurns(ageing_seconds=60.0)
        self.began: list[str] = []
        self.num_running = 0

    async def run(
        self, name: str, caller: str = "", priority: Priority = Priority.NORMAL, num_turns: int = 1
    ) -> None:
        """One pass, of so many turns of the event loop."""
        await self.turns.take((1, 2), priority, caller)
        try:
            self.num_running += 1
            assert self.num_running == 1
            self.began.append(name)
            for _ in range(num_turns):
                await asyncio.sleep(0)
        finally:
            self.num_running -= 1
            self.turns.give_back()


async def test_callers_share() -> None:
    """One pass of a new caller is next but for one, and an urgent one next."""
    passes = Passes()
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(passes.run(f"a{number}", "a"))
        group.create_task(passes.run("b", "b"))
        group.create_task(passes.run("urgent", "a", Priority.HIGH))
        group.create_task(passes.run("idle", "c", Priority.LOW))
    assert passes.began[:2] == ["a0", "urgent"]
    assert passes.began.index("b") <= 3
    assert [name for name in passes.began if name[0] == "a"] == ["a0", "a1", "a2", "a3", "a4"]
    assert passes.began[-1] == "idle"


async def test_cancelled_in_its_turn_hands_it_on() -> None:
    """Also when the turn has come, and its task has not gone on yet."""
    passes = Passes()
    await passes.turns.take((1,), Priority.NORMAL, "")
    leaving, staying = (asyncio.create_task(passes.run(name)) for name in ("leaving", "staying"))
    await asyncio.sleep(0)
    assert len(passes.turns) == 2
    passes.turns.give_back()
    leaving.cancel()
    await staying
    assert passes.began == ["staying"]
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_cancelled_as_the_turn_ends_is_passed_over() -> None:
    """Its task has not gone on since it was cancelled."""
    passes = Passes()
    await passes.turns.take((1,), Priority.NORMAL, "")
    leaving, staying = (asyncio.create_task(passes.run(name)) for name in ("leaving", "staying"))
    await asyncio.sleep(0)
    leaving.cancel()
    passes.turns.give_back()
    await staying
    assert passes.began == ["staying"]


@pytest.mark.parametrize("seed", range(20))
async def test_no_turn_is_lost(seed: int) -> None:
    """Whoever leaves when: the others have a turn each, and none is left taken."""
    rng, passes = random.Random(seed), Passes()
    tasks: dict[str, asyncio.Task[None]] = {}
    cancelled = set()
    for number in range(200):
        name = str(number)
        tasks[name] = asyncio.create_task(
            passes.run(
                name, rng.choice("abc"), rng.choice(list(Priority)), num_turns=rng.randrange(3)
            )
        )
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        if rng.random() < 0.5:
            other = rng.choice(list(tasks))
            if tasks[other].cancel():
                cancelled.add(other)
    await asyncio.wait(tasks.values())
    assert set(tasks) - set(passes.began) <= cancelled
    assert len(passes.began) == len(set(passes.began))
    assert len(passes.turns) == 0
    await asyncio.wait_for(passes.turns.take((1,), Priority.LOW, ""), 1.0)
