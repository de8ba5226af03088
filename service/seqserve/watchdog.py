"""Watches the event loop: everybody waits while it does not answer, and nobody else can say why."""

import asyncio
import sys
import threading
import time
import traceback

import structlog

from seqserve.metrics import Metrics

_log = structlog.get_logger(__name__)
_PROBE_SECONDS = 1.0
"""Between two looks at the event loop."""


class Watchdog:
    """A thread that asks the event loop for a sign of life, time after time."""

    def __init__(
        self, metrics: Metrics, limit_seconds: float, *, probe_seconds: float = _PROBE_SECONDS
    ) -> None:
        """Does not start yet.

        Args:
            metrics: Where it records.
            limit_seconds: After which a loop that does not answer counts as blocked; 0: nobody
                looks.
            probe_seconds: Between an answer and the next question.
        """
        self._metrics = metrics
        self._limit_seconds = limit_seconds
        self._probe_seconds = probe_seconds
        self._answer = threading.Event()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts watching a loop."""
        if not self._limit_seconds:
            return
        self._thread = threading.Thread(
            target=self._run, args=(loop,), name="watchdog", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Ends the thread. Not from the loop it watches, which it may wait for."""
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._is_closed.wait(self._probe_seconds):
            self._answer.clear()
            asked_at = time.monotonic()
            try:
                loop.call_soon_threadsafe(self._answer.set)
            except RuntimeError:  # it is closed
                return
            if not self._answer.wait(self._limit_seconds):
                self._report()
                while not self._answer.wait(self._probe_seconds):
                    if self._is_closed.is_set() or loop.is_closed():
                        return
                seconds = round(time.monotonic() - asked_at, 3)
                _log.warning("event loop answers again", seconds=seconds)
            self._metrics.event_loop_lag.observe(time.monotonic() - asked_at)

    def _report(self) -> None:
        """Logs where all threads are: lines of code, and no values."""
        self._metrics.event_loop_blocks.inc()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        stacks = {
            names.get(ident, str(ident)): "".join(traceback.format_stack(frame))
            for ident, frame in sys._current_frames().items()
            if ident != threading.get_ident()
        }
        _log.error("event loop blocked", seconds=self._limit_seconds, stacks=stacks)
