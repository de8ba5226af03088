"""A forward pass ends when nobody waits for it any more, and only then."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from seqserve.v1 import encoding_pb2
from served_folders import copy_version
from serving import MakeServer, RunningServer
from slow_graph import plant_delay

PATIENCE_SECONDS = 20.0
SLOW = "slow"
LONG_TEXT = "a long text that has many more words than the other one " * 2


@pytest.fixture
async def slow(serving: MakeServer, store: Path, tmp_path: Path) -> AsyncIterator[RunningServer]:
    """A server of a model that takes minutes for a long text."""
    plant_delay(copy_version(store / "sentence" / "1", tmp_path / SLOW / "1"))
    async with serving(models=tmp_path, lanes=1, preflight=False) as running:
        yield running


async def embed(running: RunningServer, text: str, seconds: float | None = None) -> None:
    """Embeds a text."""
    await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=[text]), timeout=seconds)


async def begun(running: RunningServer) -> None:
    """Waits until the worker computes."""
    worker = running.registry.find(SLOW, "", None).lanes.workers[0]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while worker._interruption._pass is None:
            await asyncio.sleep(0.001)


def count_dropped(running: RunningServer, reason: str) -> float:
    """Running sequences given up for a reason."""
    labels = {"model_name": SLOW, "model_version": "1", "reason": reason, "state": "running"}
    return (
        running.metrics.registry.get_sample_value("seqserve_dropped_sequences_total", labels) or 0
    )


async def test_run_is_ended_at_the_deadline(slow: RunningServer) -> None:
    """The next call has its answer within a tenth of a second after the deadline of the first."""
    await embed(slow, "a", PATIENCE_SECONDS)
    started_at = time.monotonic()
    call = asyncio.ensure_future(embed(slow, LONG_TEXT, 0.5))
    await begun(slow)
    following = asyncio.ensure_future(embed(slow, "a", PATIENCE_SECONDS))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    await following
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started_at < 0.6
    assert count_dropped(slow, "expired") == 1


async def test_run_is_ended_when_the_caller_has_gone(slow: RunningServer) -> None:
    """A call that is cancelled takes no more time of the model."""
    call = asyncio.ensure_future(embed(slow, LONG_TEXT))
    await begun(slow)
    call.cancel()
    await embed(slow, "a", PATIENCE_SECONDS)
    assert count_dropped(slow, "cancelled") == 1


async def test_run_is_ended_at_the_limit_of_the_server(
    serving: MakeServer, store: Path, tmp_path: Path
) -> None:
    """A caller who sets no deadline has the server's, and the pass ends with it."""
    plant_delay(copy_version(store / "sentence" / "1", tmp_path / SLOW / "1"))
    async with serving(
        models=tmp_path, lanes=1, preflight=False, max_request_seconds=0.5
    ) as running:
        call = asyncio.ensure_future(embed(running, LONG_TEXT))
        await begun(running)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        started_at = time.monotonic()
        await embed(running, "a", PATIENCE_SECONDS)
        assert time.monotonic() - started_at < 0.1
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "max_request_seconds" in str(caught.value.details())
