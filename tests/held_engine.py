"""The engine of a served model, made to wait: what comes meanwhile can be looked at."""

import asyncio
import threading
from typing import Any

import pytest

from seqserve.batch import Batch, Outcome
from serving import RunningServer

PATIENCE_SECONDS = 20.0


class HeldEngine:
    """Computes as before, but each batch waits for its turn."""

    def __init__(
        self, running: RunningServer, name: str, monkeypatch: pytest.MonkeyPatch, num_free: int = 0
    ) -> None:
        """Takes the place of the engine of a model with one lane.

        Args:
            running: The server.
            name: The model.
            monkeypatch: Gives the engine back at the end.
            num_free: Batches that need not wait.
        """
        engine = running.registry.find(name, "", None).lanes.workers[0]._engine
        self.batches: list[tuple[str, int]] = []
        """Phase and number of sequences of every batch that has come."""
        self._turns = threading.Semaphore(num_free)
        self._is_open = False
        self._whole = engine.run
        monkeypatch.setattr(engine, "run", self._run)

    def step(self, num_batches: int = 1) -> None:
        """Lets batches pass."""
        self._turns.release(num_batches)

    def open(self) -> None:
        """Lets all batches pass from now on."""
        self._is_open = True
        self.step()

    async def arrival(self, num_batches: int = 1) -> None:
        """Waits until so many batches have come in all."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.batches) < num_batches:
                await asyncio.sleep(0.001)

    def _run(self, batch: Batch, options: Any = None) -> list[Outcome]:
        self.batches.append((batch.phase, len(batch.sequences)))
        if not self._is_open:
            assert self._turns.acquire(timeout=PATIENCE_SECONDS), "nobody let the batch pass"
        return self._whole(batch, options)
