"""Calls without end, some at once, and the memory of the server after so many of them."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from soak.caller import open_channel
from soak.case import Case, all_cases
from soak.running_server import RunningServer
from soak.slope import Sample

_CONCURRENCY = 64
_NUM_SAMPLES = 100
_PATIENCE_SECONDS = 60.0
_MAX_CANCEL_SECONDS = 0.02
_WAITED_FOR_EVERY = 8

MakeCall = Callable[[grpc.aio.Channel, int], Awaitable[int]]
"""Makes the call with a number and waits for its end; returns for how many requests it counts."""


class SteadyLoad:
    """The cases of some models in turn, shapes of all kinds among them."""

    def __init__(self, *models: str) -> None:
        self._cases = [case for case in all_cases() if case.model in models]
        random.Random(56).shuffle(self._cases)

    async def call(self, channel: grpc.aio.Channel, number: int) -> int:
        """Makes a call and reads all of its answer; those of a stream are requests of their own."""
        await _read(self._start(channel, number))
        return len(self._find(number).requests)

    async def cancel(self, channel: grpc.aio.Channel, number: int) -> int:
        """Makes a call and leaves after a moment, which may be too soon or too late.

        Now and then a call is waited for: gRPC itself refuses whoever resets too much at once.
        """
        call = self._start(channel, number)
        if number % _WAITED_FOR_EVERY == 0:
            await _read(call)
            return 1
        delay = random.Random(number).uniform(0.0, _MAX_CANCEL_SECONDS)
        timer = asyncio.get_running_loop().call_later(delay, call.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await _read(call)
        timer.cancel()
        return 1

    def _find(self, number: int) -> Case:
        return self._cases[number % len(self._cases)]

    def _start(self, channel: grpc.aio.Channel, number: int) -> Any:
        case = self._find(number)
        method, requests = case.method, case.requests
        return method.open(channel)(
            iter(requests) if method.has_many_requests else requests[0],
            timeout=_PATIENCE_SECONDS,
        )


async def send_steadily(
    server: RunningServer, num_requests: int, make_call: MakeCall
) -> list[Sample]:
    """Sends at least so many requests; returns resident bytes by the requests that had ended."""
    samples: list[Sample] = []
    numbers = itertools.count()
    num_ended = 0

    async def send_next(channel: grpc.aio.Channel) -> None:
        nonlocal num_ended
        while num_ended < num_requests:
            num_answered = await make_call(channel, next(numbers))
            num_ended += num_answered
            if num_ended * _NUM_SAMPLES // num_requests > len(samples):
                samples.append((num_ended, server.resident_bytes))

    async with open_channel(server.target) as channel, asyncio.TaskGroup() as group:
        for _ in range(_CONCURRENCY):
            group.create_task(send_next(channel))
    return samples


async def _read(call: Any) -> None:
    if hasattr(call, "__aiter__"):
        async for _ in call:
            pass
    else:
        await call
