"""The end of a stream of requests: whether its caller ended it, or is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from seqserve.config import ServerConfig
from seqserve.metrics import Metrics
from seqserve.servicers.calls import Calls
from seqserve.servicers.request_stream import RequestStream


class Stream(RequestStream):
    """Reads to the end, and has nothing to write."""

    async def _read(self) -> None:
        while await self._read_one() is not grpc.aio.EOF:
            pass

    async def _write(self) -> None:
        pass


class Context:
    """What gRPC gives a handler: it tells of the end before it tells of a lost connection."""

    def __init__(self, is_lost: bool) -> None:
        self.task: asyncio.Task[None]
        self._is_lost = is_lost
        self._num_reads = 0

    async def read(self) -> Any:
        """The end, each time."""
        self._num_reads += 1
        if self._num_reads > 1 and self._is_lost:
            self.task.cancel()
        await asyncio.sleep(0)
        return grpc.aio.EOF


def start(tmp_path: Path, context: Any) -> asyncio.Task[None]:
    """A stream with nothing in it."""
    stream = Stream(context, ServerConfig(models=tmp_path), Calls(1, Metrics()))
    context.task = asyncio.create_task(stream.run())
    return context.task  # type: ignore[no-any-return]


async def test_lost_connection_is_no_end(tmp_path: Path) -> None:
    """The stream is cancelled, not done, however late gRPC says so."""
    with pytest.raises(asyncio.CancelledError):
        await start(tmp_path, Context(is_lost=True))


async def test_ended_requests_are_an_end(tmp_path: Path) -> None:
    """The stream is done."""
    await start(tmp_path, Context(is_lost=False))
