"""Loads and their reports: when calls are made, and what is counted of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from seqserve.client import CallError, Timing
from seqserve.commands.bench_calls import Answer
from seqserve.commands.bench_load import Load, LoadRun, Outcome
from seqserve.commands.bench_report import summarize

TIMING = Timing(0.001, 0.002, 0.0)


def answer(num_inputs: int = 1, num_tokens: int = 3, **values: Any) -> Answer:
    """One of a server."""
    return Answer(num_inputs, num_tokens, (TIMING,) * num_inputs, 0, **values)


def load(**values: Any) -> Load:
    """Half a second of one caller, at once."""
    return Load(**{"seconds": 0.5, "warmup_seconds": 0.0, "concurrency": 1, "rate": None, **values})


class Server:
    """Answers after a while, so many calls at a time; keeps the texts that came."""

    def __init__(self, seconds: float, num_at_once: int = 1000) -> None:
        self.texts: list[list[str]] = []
        self.most = 0
        self._seconds = seconds
        self._places = asyncio.Semaphore(num_at_once)
        self._num_calls = 0

    async def __call__(self, texts: Sequence[str]) -> Answer:
        """One call."""
        self.texts.append(list(texts))
        self._num_calls += 1
        self.most = max(self.most, self._num_calls)
        try:
            async with self._places:
                await asyncio.sleep(self._seconds)
        finally:
            self._num_calls -= 1
        return answer(len(texts))


async def test_callers_wait_for_their_answers() -> None:
    """So many calls at a time and no more; texts come in turn, and from the first again."""
    server = Server(0.01)
    run = LoadRun(load(concurrency=3, inputs_per_call=2), ["a", "b", "c"])
    await run.run(server)
    assert server.most == 3
    assert server.texts[:3] == [["a", "b"], ["c", "a"], ["b", "c"]]
    assert 20 <= len(run.outcomes) <= 150
    assert {one.code for one in run.outcomes} == {"OK"}


async def test_arrivals_are_a_poisson_process() -> None:
    """The same for the same seed, whatever is unanswered."""
    server = Server(0.2)
    run = LoadRun(load(concurrency=None, rate=100.0, arrival_seed=4), ["a"])
    await run.run(server)
    draws, times = random.Random(4), [0.0]
    while times[-1] < 0.5:
        times.append(times[-1] + draws.expovariate(100.0))
    assert sorted(one.due_at for one in run.outcomes) == pytest.approx(times[1:-1])
    assert server.most > 10
    assert all(one.sent_at >= one.due_at for one in run.outcomes)


async def test_latency_at_a_rate_counts_from_the_arrival() -> None:
    """Of a call that waits for those before it, too: 20 calls a second, two of which fit."""
    run = LoadRun(load(concurrency=None, rate=20.0, seconds=1.0), ["a"])
    await run.run(Server(0.5, num_at_once=1))
    latencies = sorted(one.ended_at - one.due_at for one in run.outcomes)
    assert latencies[-1] > 0.5 * len(latencies) - 1.0 > 2.0


async def test_hopeless_call_is_the_last() -> None:
    """Others that wait for their time are not made."""

    async def refuse(_: Sequence[str]) -> Answer:
        raise CallError("NOT_FOUND", "no such model")

    for how in ({"concurrency": 2}, {"concurrency": None, "rate": 50.0}):
        run = LoadRun(load(seconds=30.0, **how), ["a"])
        async with asyncio.timeout(5.0):
            with pytest.raises(CallError, match="no such model"):
                await run.run(refuse)
        assert len(run.outcomes) <= 2


async def test_refused_caller_comes_back_when_it_is_told_to() -> None:
    """After what the server says, or after a tenth of a second."""
    for seconds, most in ((0.2, 3), (None, 5)):

        async def refuse(_: Sequence[str], seconds: float | None = seconds) -> Answer:
            raise CallError("RESOURCE_EXHAUSTED", "full", retry_after_seconds=seconds)

        run = LoadRun(load(), ["a"])
        await run.run(refuse)
        assert 2 <= len(run.outcomes) <= most
        assert run.num_failed == len(run.outcomes)


def outcome(due_at: float, ended_at: float, code: str = "OK", message: str = "") -> Outcome:
    """One call, sent when it was due."""
    return Outcome(due_at, due_at, ended_at, code, message, answer() if code == "OK" else None)


def test_report_leaves_the_warm_up_out() -> None:
    """Latencies and codes are of calls after it, rates of answers after it and before the end."""
    report = summarize(
        load(seconds=2.0, warmup_seconds=1.0),
        [
            outcome(0.1, 0.2),
            outcome(0.9, 1.1),
            outcome(1.2, 1.3),
            outcome(1.5, 1.8, "UNAVAILABLE", "gone"),
            outcome(1.6, 1.9, "UNAVAILABLE", "still gone"),
            outcome(2.0, 2.4),
            outcome(2.9, 3.5),
        ],
        until_seconds=3.0,
    )
    assert report["codes"] == {"OK": 3, "UNAVAILABLE": 2}
    assert report["messages"] == {"UNAVAILABLE": "gone"}
    assert report["calls_per_second"] == 1.5
    assert report["tokens_per_second"] == 4.5
    latency = report["latency_seconds"]
    assert [latency["p50"], latency["max"]] == pytest.approx([0.4, 0.6])
    assert latency["mean"] == pytest.approx(1.1 / 3)
    assert report["queue_seconds"]["p99"] == pytest.approx(0.001)
    assert "decode_seconds" not in report
    assert "first_token_seconds" not in report


def test_report_of_an_interrupted_load() -> None:
    """What was measured until then; nothing, if that was in the warm-up."""
    begun = [outcome(0.1, 0.2), outcome(1.1, 1.2)]
    early = load(seconds=9.0, warmup_seconds=1.0)
    assert summarize(early, begun, 2.0)["calls_per_second"] == 1.0
    nothing = summarize(early, begun[:1], 0.5)
    assert (nothing["measured_seconds"], nothing["codes"]) == (0.0, {})
    assert nothing["calls_per_second"] == 0.0


def test_report_of_calls_behind_their_time() -> None:
    """The largest lag is told."""
    late = Outcome(0.1, 0.15, 0.2, "OK", "", answer())
    assert summarize(load(), [late], 0.5)["max_lag_seconds"] == pytest.approx(0.05)
