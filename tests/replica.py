"""Replicas as processes, and callers who call them all the time."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path

import grpc

from processes import free_port, read_metrics, start_process, wait_until_ready
from seqserve.client.channel import Connection
from seqserve.v1 import generation_pb2, generation_pb2_grpc
from serving import source, status_of

PATIENCE_SECONDS = 60.0
NUM_CALLERS = 4
OPTIONS: list[tuple[str, str | int]] = [
    *Connection(retries=False).options(),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    # Channels of one process that are alike share their connections, unless told otherwise.
    ("grpc.use_local_subchannel_pool", 1),
]
"""Of our own clients, which balance over all addresses and listen to health; no retries."""
REQUEST = generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([5, 6, 7, 1])])


class Replica:
    """A server as a process, always on the same port."""

    def __init__(self, store: Path, *flags: str) -> None:
        self.port = free_port()
        self._store, self._flags = store, flags

    async def start(self) -> None:
        """Starts it and waits until it is ready."""
        self.process = await asyncio.to_thread(
            start_process,
            self._store,
            *("--port", str(self.port), "--threads", "1", "--no-preflight"),
            *("--log-level", "warning", *self._flags),
        )
        self.ports = await wait_until_ready(self.process)

    async def count_answered(self) -> int:
        """Calls that it has answered with OK."""
        page = await read_metrics(self.ports.metrics)
        return sum(
            int(float(line.rpartition(" ")[2]))
            for line in page.splitlines()
            if line.startswith("seqserve_requests_total") and 'code="OK"' in line
        )


class Load:
    """Callers who call one after the other all the time; without retries, but for those given."""

    def __init__(
        self,
        *ports: int,
        num_channels: int = 1,
        options: list[tuple[str, str | int]] | None = None,
    ) -> None:
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        self._channels = [
            grpc.aio.insecure_channel(f"ipv4:{addresses}", options or OPTIONS)
            for _ in range(num_channels)
        ]
        self._is_over = False
        self.num_answered = 0
        self.failures: Counter[str] = Counter()

    async def __aenter__(self) -> Load:
        stubs = map(generation_pb2_grpc.GenerationServiceStub, itertools.cycle(self._channels))
        self._callers = [asyncio.create_task(self._call(next(stubs))) for _ in range(NUM_CALLERS)]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._callers)
        for channel in self._channels:
            await channel.close()

    async def _call(self, stub: generation_pb2_grpc.GenerationServiceAsyncStub) -> None:
        while not self._is_over:
            try:
                reply = await stub.Generate(REQUEST, timeout=PATIENCE_SECONDS)
                assert len(reply.results) == 1
                self.num_answered += 1
            except grpc.aio.AioRpcError as error:
                self.failures[status_of(error)] += 1

    async def wait_for(self, num_more: int) -> None:
        """Waits until so many more calls were answered."""
        wanted = self.num_answered + num_more
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.num_answered < wanted:
                await asyncio.sleep(0.005)
