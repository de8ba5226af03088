"""The watchdog says where the event loop hangs, once, and nothing while it answers."""

import asyncio
import threading
import time
from typing import Any

import structlog

from seqserve.metrics import Metrics
from seqserve.watchdog import Watchdog

PATIENCE_SECONDS = 20.0


def read(metrics: Metrics, name: str) -> float:
    """One number of the page."""
    value = metrics.registry.get_sample_value(f"seqserve_event_loop_{name}")
    assert value is not None
    return value


async def until(metrics: Metrics, name: str, number: float) -> None:
    """Waits until a number of the page is reached."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while read(metrics, name) < number:
            await asyncio.sleep(0)


def hang_here(logs: list[Any]) -> None:
    """Blocks whoever calls it until something was logged, and calls nothing that has frames."""
    while not logs:
        time.sleep(0.001)


async def test_blocked_loop_is_reported_once() -> None:
    """With the stacks of all threads, the place it hangs at among them; then it goes on."""
    metrics = Metrics()
    watchdog = Watchdog(metrics, 0.05, probe_seconds=0.001)
    with structlog.testing.capture_logs() as logs:
        watchdog.start(asyncio.get_running_loop())
        await until(metrics, "lag_seconds_count", 2)
        hang_here(logs)
        await until(metrics, "lag_seconds_count", read(metrics, "lag_seconds_count") + 2)
        await asyncio.to_thread(watchdog.close)
    blocked, answers = logs
    assert (blocked["event"], blocked["log_level"]) == ("event loop blocked", "error")
    stacks: dict[str, Any] = blocked["stacks"]
    assert "in hang_here" in stacks["MainThread"]
    assert "watchdog" not in stacks
    assert answers["event"] == "event loop answers again"
    assert answers["seconds"] >= 0.05
    assert read(metrics, "blocks_total") == 1


async def test_loop_that_answers_is_only_timed() -> None:
    """Its lag is on the page; nothing is logged."""
    metrics = Metrics()
    watchdog = Watchdog(metrics, 10.0, probe_seconds=0.001)
    with structlog.testing.capture_logs() as logs:
        watchdog.start(asyncio.get_running_loop())
        await until(metrics, "lag_seconds_count", 5)
        await asyncio.to_thread(watchdog.close)
    assert logs == []
    assert read(metrics, "blocks_total") == 0


async def test_zero_turns_it_off() -> None:
    """No thread is started."""
    before = threading.active_count()
    watchdog = Watchdog(Metrics(), 0.0)
    watchdog.start(asyncio.get_running_loop())
    assert threading.active_count() == before
    watchdog.close()


def test_closed_loop_ends_the_thread() -> None:
    """A loop that was closed without a word leaves no thread that fails."""
    watchdog = Watchdog(Metrics(), 10.0, probe_seconds=0.01)

    async def start() -> None:
        watchdog.start(asyncio.get_running_loop())

    asyncio.run(start())
    assert watchdog._thread is not None
    watchdog._thread.join(PATIENCE_SECONDS)
    assert not watchdog._thread.is_alive()
