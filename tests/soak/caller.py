"""One caller: a process that makes the calls of its plan, some at once, and keeps its ledger.

It stops when its standard input is closed: calls that have begun are finished first.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc

from seqserve.servicers.request_id import REQUEST_ID_KEY
from soak.answer import read_answers
from soak.bearer import METERED
from soak.case import Case
from soak.ledger import Ledger
from soak.plan import PlannedCall, plan_calls
from soak.relay import Relay

CONCURRENCY = 6
MAX_MESSAGE_BYTES = 262_144
"""What the server is told to take."""
_MAX_CANCEL_SECONDS = 0.03
_MAX_LATE_SECONDS = 0.01
_MAX_PAUSE_SECONDS = 0.05
_UNSENT_TEXT = "Internal error from Core"
UNSENT = "UNSENT"
"""Stands for a status: gRPC's client has none for a stream that ended before all was sent."""
_OPTIONS: list[tuple[str, int]] = [
    # Each call is sent once, whatever becomes of it.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


def open_channel(target: str) -> grpc.aio.Channel:
    """A connection of its own, whose calls are never sent twice."""
    return grpc.aio.insecure_channel(target, _OPTIONS)


class Caller:
    """Makes calls and enters them in a ledger."""

    def __init__(
        self, name: str, ledger: Ledger, channel: grpc.aio.Channel, patience_seconds: float
    ) -> None:
        """Takes a connection.

        Args:
            name: Of which the ids of calls are made.
            ledger: Where they are entered.
            channel: What they are sent over.
            patience_seconds: The deadline of calls that are not meant to miss it.
        """
        self._name = name
        self._ledger = ledger
        self._channel = channel
        self._patience_seconds = patience_seconds

    async def call(self, number: int, planned: PlannedCall, relay: Relay | None = None) -> str:
        """Makes one call with what is to be done to it; returns its status code."""
        call_id = f"{self._name}-{number}"
        case, fault = planned.case, planned.fault
        marks = {"+fragile": planned.is_fragile, "+metered": planned.token == METERED}
        place = fault + "".join(mark for mark, is_set in marks.items() if is_set)
        self._ledger.begin(call_id, case.name, place, planned.version)
        seconds = self._patience_seconds
        if fault == "late":
            seconds = planned.moment * _MAX_LATE_SECONDS
        requests = _requests(planned)
        method = case.method
        call = method.open(self._channel)(
            iter(requests) if method.has_many_requests else requests[0],
            timeout=seconds,
            metadata=((REQUEST_ID_KEY, call_id), *planned.metadata),
        )
        timer = self._set_timer(planned, call, relay)
        responses: list[Any] = []
        code: str
        try:
            async for response in _responses(call, case):
                responses.append(response)
                if fault == "slow":
                    await asyncio.sleep(planned.moment * _MAX_PAUSE_SECONDS)
                elif fault == "left":
                    call.cancel()
                    break
            code, text = (await call.code()).name, await call.details() or ""
        except grpc.aio.AioRpcError as error:
            code, text = error.code().name, error.details() or ""
        except asyncio.CancelledError:
            if fault not in ("cancelled", "left"):
                raise
            code, text = "CANCELLED", ""
        finally:
            timer.cancel()
        if text == _UNSENT_TEXT:
            code = UNSENT
        self._ledger.answer(call_id, read_answers(case, responses))
        self._ledger.end(call_id, code, text)
        return code

    def _set_timer(
        self, planned: PlannedCall, call: Any, relay: Relay | None
    ) -> asyncio.TimerHandle:
        """Ends the call early, if it is to; the timer means nothing once the call has ended."""

        def ring() -> None:
            if planned.fault == "cancelled":
                call.cancel()
            elif planned.fault == "cut" and relay is not None:
                self._ledger.cut()
                relay.cut()

        delay = planned.moment * _MAX_CANCEL_SECONDS
        return asyncio.get_running_loop().call_later(delay, ring)


def _requests(planned: PlannedCall) -> list[Any]:
    """What is sent: requests, or one that is spoiled."""
    first, *others = planned.case.requests_to(planned.version)
    if planned.fault == "malformed":
        return [b"\xff" * 20]
    if planned.fault == "oversized":
        return [bytes(MAX_MESSAGE_BYTES + 1)]
    if planned.fault == "absent":
        first.model_name = "absent"
    if planned.fault == "wrong":
        for name in ("inputs", "documents", "texts", "input"):
            if name in first.DESCRIPTOR.fields_by_name:
                first.ClearField(name)
    return [first, *others]


async def _responses(call: Any, case: Case) -> AsyncIterator[Any]:
    if case.method.has_many_responses:
        async for response in call:
            yield response
    else:
        yield await call


def main() -> None:
    """Runs one caller."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("name")
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--patience-seconds", type=float, required=True)
    asyncio.run(_run(parser.parse_args()))


async def _run(arguments: argparse.Namespace) -> None:
    is_over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, is_over.set)
    numbered = iter(enumerate(plan_calls(arguments.seed, arguments.name)))
    with Ledger(arguments.ledger) as ledger:
        async with (
            Relay(arguments.target) as relay,
            open_channel(arguments.target) as steady,
            open_channel(relay.target) as fragile,
        ):
            callers = {
                channel is fragile: Caller(
                    arguments.name, ledger, channel, arguments.patience_seconds
                )
                for channel in (steady, fragile)
            }
            async with asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(_call_on(callers, numbered, relay, is_over))


async def _call_on(
    callers: dict[bool, Caller],
    numbered: Iterator[tuple[int, PlannedCall]],
    relay: Relay,
    is_over: asyncio.Event,
) -> None:
    while not is_over.is_set():
        number, planned = next(numbered)
        await callers[planned.is_fragile].call(number, planned, relay)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
