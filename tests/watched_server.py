"""A server as a process, and the memory that it takes while something is done to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import psutil

from processes import ReadyPorts, start_process, stop_process, wait_until_ready
from seqserve.v1 import generation_pb2, generation_pb2_grpc
from serving import source

MEBIBYTE = 2**20


class WatchedServer:
    """Where it listens, and how much it has grown."""

    def __init__(self, ports: ReadyPorts, process: psutil.Process) -> None:
        self.ports = ports
        self._process = process
        self._before = 0

    @property
    def target(self) -> str:
        """The address of its calls."""
        return f"127.0.0.1:{self.ports.grpc}"

    async def begin(self) -> None:
        """Measures from here on, after a call of the usual kind."""
        async with grpc.aio.insecure_channel(self.target) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            request = generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([5, 1])])
            assert len((await stub.Generate(request)).results) == 1
        self._before = self._process.memory_info().rss

    def growth(self) -> int:
        """Bytes that it has taken since."""
        rss: int = self._process.memory_info().rss
        return rss - self._before


@contextlib.asynccontextmanager
async def watched(
    store: Path, *flags: str, max_growth: int = 16 * MEBIBYTE
) -> AsyncIterator[WatchedServer]:
    """A server that is measured, and serves well before and after.

    Args:
        store: Its models, one of which is ``tiny``.
        flags: More of its settings.
        max_growth: Bytes that it may have taken when the block ends.
    """
    process = await asyncio.to_thread(
        start_process, store, "--threads", "1", "--no-preflight", "--log-level", "warning", *flags
    )
    try:
        server = WatchedServer(await wait_until_ready(process), psutil.Process(process.pid))
        await server.begin()
        yield server
        growth = server.growth()
        await server.begin()
        await stop_process(process)
    finally:
        process.kill()
        process.communicate()
    assert growth < max_growth
