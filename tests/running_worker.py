"""Workers with a fake engine, started and ended, and what they answer."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fakes import FakeEngine
from seqserve.intake import SchedulerLimits
from seqserve.metrics import Metrics
from seqserve.model_metrics import ModelMetrics
from seqserve.worker import Worker

PATIENCE_SECONDS = 20.0
"""Far beyond what any test takes: only a worker that forgot someone gets here."""


def make_worker(
    engine: FakeEngine,
    metrics: Metrics | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    **settings: Any,
) -> Worker:
    """A worker of at most 8 rows, not started."""
    model_metrics = ModelMetrics(metrics or Metrics(), "fake", "1", clock=clock)
    limits = SchedulerLimits(8, 64)
    return Worker(engine, limits, model_metrics, name="fake/1", clock=clock, **settings)


def is_alive(worker: Worker) -> bool:
    """Whether it takes sequences."""
    return worker._thread.is_alive() and not worker._is_closed


@contextlib.asynccontextmanager
async def running(
    engine: FakeEngine, on_death: Callable[[], None] | None = None, **settings: Any
) -> AsyncIterator[Worker]:
    """A started worker that has ended, without a fault on the loop, when the block is left."""
    worker = make_worker(engine, **settings)
    loop = asyncio.get_running_loop()
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    worker.start(loop, on_death)
    try:
        yield worker
    finally:
        engine.gate.set()
        worker.close()
        await asyncio.wait_for(worker.join(), PATIENCE_SECONDS)
        await asyncio.sleep(0)  # what the worker handed over last
        assert not is_alive(worker)
        assert faults == []


async def outcomes(futures: list[asyncio.Future[Any]]) -> list[Any]:
    """The answers and errors of futures."""
    gathered = asyncio.gather(*futures, return_exceptions=True)
    return await asyncio.wait_for(gathered, PATIENCE_SECONDS)


async def arrival(engine: FakeEngine) -> None:
    """Waits until the engine was given a batch."""
    assert await asyncio.to_thread(engine.arrived.wait, PATIENCE_SECONDS)
