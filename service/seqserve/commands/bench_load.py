"""Calls of a load: by callers that wait for their answers, or by arrivals at a rate.

At a rate the loop is open: a call is sent when its time has come, however many are unanswered, and
its latency counts from that time, so that a server that stalls is not spared the calls it delays.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from collections.abc import Sequence as Items

from seqserve.client import CallError
from seqserve.commands.bench_calls import Answer

_HOPELESS = (
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "UNIMPLEMENTED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
)
"""Codes that every further call would end with, too."""
_PAUSE_SECONDS = 0.1
"""Of a caller whose call failed, unless the server says when to come back."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is asked for, and for how long."""

    seconds: float
    """That are measured."""
    warmup_seconds: float
    """Before them."""
    concurrency: int | None
    """Callers; None for arrivals at a rate."""
    rate: float | None
    """Calls a second on average, as a Poisson process; None for callers."""
    arrival_seed: int = 0
    inputs_per_call: int = 1

    @property
    def total_seconds(self) -> float:
        """During which calls begin."""
        return self.warmup_seconds + self.seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """One call; times are seconds since the load began."""

    due_at: float
    sent_at: float
    ended_at: float
    code: str
    """OK, or that of the status."""
    message: str
    """Of the status; empty when OK."""
    answer: Answer | None


class LoadRun:
    """One load, under way or done."""

    def __init__(self, load: Load, texts: Items[str]) -> None:
        """Prepares it: calls take text after text, and the first again after the last."""
        self.load = load
        self._texts = itertools.cycle(texts)
        self._began_at = 0.0
        self._failure: CallError | None = None
        self._failed = asyncio.Event()
        self.outcomes: list[Outcome] = []
        """Of the calls that have ended."""
        self.num_failed = 0
        """Of them."""

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._began_at

    async def run(self, make_call: Callable[[Items[str]], Awaitable[Answer]]) -> None:
        """Makes the calls, and waits for all answers.

        Raises:
            CallError: The server refused a call as it would refuse all others.
        """
        self._make_call = make_call
        self._began_at = time.perf_counter()
        if self.load.concurrency is None:
            await self._arrive()
        else:
            await asyncio.gather(*(self._call_in_turn() for _ in range(self.load.concurrency)))
        if self._failure is not None:
            raise self._failure

    async def _call_in_turn(self) -> None:
        while (now := self.now) < self.load.total_seconds and self._failure is None:
            error = await self._call(now)
            if error is not None:
                pause = error.retry_after_seconds or _PAUSE_SECONDS
                await self._sleep_until(min(self.now + pause, self.load.total_seconds))

    async def _arrive(self) -> None:
        assert self.load.rate is not None
        gaps, due_at = random.Random(self.load.arrival_seed), 0.0
        async with asyncio.TaskGroup() as calls:
            while self._failure is None:
                due_at += gaps.expovariate(self.load.rate)
                if due_at >= self.load.total_seconds:
                    break
                await self._sleep_until(due_at)
                calls.create_task(self._call(due_at))

    async def _sleep_until(self, due_at: float) -> None:
        """Also until a call fails as all others would."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._failed.wait(), max(0.0, due_at - self.now))

    async def _call(self, due_at: float) -> CallError | None:
        """Makes one call; returns why it failed, if it did."""
        texts = list(itertools.islice(self._texts, self.load.inputs_per_call))
        sent_at, code, message = self.now, "OK", ""
        answer, failure = None, None
        try:
            answer = await self._make_call(texts)
        except CallError as error:
            code, message, failure = error.code, error.message, error
            self.num_failed += 1
            if code in _HOPELESS:
                self._failure = error
                self._failed.set()
        self.outcomes.append(Outcome(due_at, sent_at, self.now, code, message, answer))
        return failure
