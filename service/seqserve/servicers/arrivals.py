"""The tokens of one stream, between the worker that decides them and the caller who reads them."""

import asyncio
import time

from seqserve.model_metrics import ModelMetrics


class Arrivals:
    """A queue that observes how fast tokens come, however fast they are read. Event loop only."""

    def __init__(self, metrics: ModelMetrics) -> None:
        self._metrics = metrics
        self._queue: asyncio.Queue[list[int] | None] = asyncio.Queue()
        self._last_at: float | None = None

    def put(self, tokens: list[int]) -> None:
        """Takes newly decided tokens."""
        now, last_at = time.monotonic(), self._last_at
        self._last_at = now
        if last_at is not None:
            self._metrics.observe_gap(now - last_at, len(tokens))
        self._queue.put_nowait(tokens)

    def end(self) -> None:
        """Takes note that no more tokens come."""
        self._queue.put_nowait(None)

    async def get(self) -> list[int] | None:
        """The next tokens; None at the end."""
        return await self._queue.get()
