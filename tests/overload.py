"""Twice as much as a server can do, for half a minute: what it does of it, how soon it refuses."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections import Counter
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from processes import ReadyPorts
from seqserve.v1 import generation_pb2, generation_pb2_grpc

OVERLOAD_SECONDS = 30.0
PROBE_SECONDS = 0.25
"""Between two health checks."""


@dataclasses.dataclass(frozen=True)
class End:
    """How a call ended."""

    code: str
    began_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended_at - self.began_at


@dataclasses.dataclass(frozen=True)
class Overload:
    """What came of it."""

    capacity: float
    """Calls a second with callers who wait for their answers."""
    goodput: float
    """Calls a second that were answered while twice as many were made."""
    codes: Counter[str]
    refusal_seconds: list[float]
    slowest_seconds: float
    """Of all calls."""
    sending_seconds: float
    """From the first call to the last; late callers are no load."""
    probe_seconds: list[float]


class Load:
    """Calls of many lengths to one server.

    Of one length they would all end at once, and what begins at once is cheaper together than what
    comes one by one: the capacity would be that of another load.
    """

    def __init__(
        self,
        ports: ReadyPorts,
        requests: Sequence[generation_pb2.GenerateRequest],
        *,
        num_callers: int,
        deadline_seconds: float,
    ) -> None:
        """Prepares the load.

        Args:
            ports: Of the server.
            requests: Of which each call makes any.
            num_callers: Who wait for their answers and call again; all that the server takes.
            deadline_seconds: Of a call.
        """
        self._ports = ports
        self._requests = requests
        self._num_callers = num_callers
        self._deadline_seconds = deadline_seconds
        self._choices = random.Random(1)

    async def run(self, *, fill_seconds: float, capacity_seconds: float) -> Overload:
        """Measures what the server can do, then sends twice as much.

        Args:
            fill_seconds: Until batch and queue are full, which are not counted.
            capacity_seconds: For which callers who wait are counted.
        """
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._ports.grpc}") as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            capacity = await self._measure_capacity(stub, fill_seconds, capacity_seconds)
            probing = asyncio.create_task(self._probe())
            began_at = time.monotonic()
            ends = await self._call_at(stub, 2 * capacity)
            probing.cancel()
            probes = await probing
        full_at, over_at = began_at + fill_seconds, began_at + OVERLOAD_SECONDS
        return Overload(
            capacity,
            _count_answers(ends, full_at, over_at) / (over_at - full_at),
            Counter(end.code for end in ends),
            [end.seconds for end in ends if end.code == "RESOURCE_EXHAUSTED"],
            max(end.seconds for end in ends),
            max(end.began_at for end in ends) - began_at,
            probes,
        )

    async def _call(self, stub: generation_pb2_grpc.GenerationServiceAsyncStub) -> End:
        began_at, code = time.monotonic(), "OK"
        try:
            request = self._choices.choice(self._requests)
            await stub.Generate(request, timeout=self._deadline_seconds)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        return End(code, began_at, time.monotonic())

    async def _measure_capacity(
        self,
        stub: generation_pb2_grpc.GenerationServiceAsyncStub,
        fill_seconds: float,
        capacity_seconds: float,
    ) -> float:
        ends: list[End] = []
        full_at = time.monotonic() + fill_seconds
        over_at = full_at + capacity_seconds

        async def keep_calling() -> None:
            while time.monotonic() < over_at:
                ends.append(await self._call(stub))

        await asyncio.gather(*(keep_calling() for _ in range(self._num_callers)))
        assert {end.code for end in ends} == {"OK"}
        return _count_answers(ends, full_at, over_at) / capacity_seconds

    async def _call_at(
        self, stub: generation_pb2_grpc.GenerationServiceAsyncStub, rate: float
    ) -> list[End]:
        """Calls so many times a second, whatever becomes of earlier calls."""
        calls = []
        began_at = time.monotonic()
        for number in range(round(rate * OVERLOAD_SECONDS)):
            await asyncio.sleep(max(0.0, began_at + number / rate - time.monotonic()))
            calls.append(asyncio.create_task(self._call(stub)))
        return list(await asyncio.gather(*calls))

    async def _probe(self) -> list[float]:
        """Seconds that health checks take, on both ports in turn, until it is cancelled."""
        seconds = []
        try:
            while True:
                for port in (self._ports.grpc, self._ports.health):
                    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                        began_at = time.monotonic()
                        reply = await health_pb2_grpc.HealthStub(channel).Check(
                            health_pb2.HealthCheckRequest(), timeout=5.0
                        )
                        assert reply.status == health_pb2.HealthCheckResponse.SERVING
                        seconds.append(time.monotonic() - began_at)
                    await asyncio.sleep(PROBE_SECONDS)
        except asyncio.CancelledError:
            return seconds


def _count_answers(ends: Sequence[End], since: float, until: float) -> int:
    return sum(end.code == "OK" and since < end.ended_at <= until for end in ends)
