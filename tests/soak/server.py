"""The server of a soak: ours, whose next batch fails on SIGUSR1, and who says more on SIGUSR2.

It is run as ``seqserve`` is, with the same command line.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Any

import structlog

import seqserve.__main__
from seqserve.batch import Batch, Outcome
from seqserve.config import ServerConfig
from seqserve.engine import EmbeddingEngine, GenerationEngine, PredictionEngine
from seqserve.metrics import Metrics
from seqserve.registry import Registry
from seqserve.server import Server
from seqserve.worker import Worker

FAULT = "planted by the soak"
"""The text of the error that a batch fails with."""
STATE_EVENT = "state"
_IDLE_SECONDS = 0.5
"""After which the memory of a cache is given back: often, since callers leave pauses."""
_log = structlog.get_logger(__name__)


class PlantedFault:
    """Whether a batch is to fail."""

    def __init__(self) -> None:
        self._is_due = threading.Event()
        self._turn = threading.Lock()

    def plant(self, *_: Any) -> None:
        """Has the next batch fail; a handler of signals."""
        self._is_due.set()

    def wrap(self, run: Callable[[Any, Batch, Any], list[Outcome]]) -> Any:
        """An engine's ``run`` that fails when a fault was planted."""

        def run_or_fail(engine: Any, batch: Batch, options: Any = None) -> list[Outcome]:
            if self._is_due.is_set() and self._take():
                raise RuntimeError(FAULT)
            return run(engine, batch, options)

        return run_or_fail

    def _take(self) -> bool:
        """Gives the fault to one worker; a version that is being loaded runs in other threads."""
        if not threading.current_thread().name.startswith("worker-"):
            return False
        with self._turn:
            is_due = self._is_due.is_set()
            self._is_due.clear()
            return is_due


class OpenServer(Server):
    """Logs what a server holds when SIGUSR2 comes."""

    def __init__(
        self, registry: Registry, config: ServerConfig, metrics: Metrics, **settings: Any
    ) -> None:
        super().__init__(registry, config, metrics, **settings)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR2, self._tell)

    def _tell(self) -> None:
        _log.info(
            STATE_EVENT,
            tasks=len(asyncio.all_tasks()),
            calls=len(self._calls._tasks),
            outstanding=sum(model.admission.num_outstanding for model in self._registry.models),
            lane_work=sum(
                sum(load.values()) for model in self._registry.models for load in model.lanes._loads
            ),
        )


def main() -> None:
    """Runs the server."""
    fault = PlantedFault()
    for engine in (EmbeddingEngine, GenerationEngine, PredictionEngine):
        setattr(engine, "run", fault.wrap(engine.run))  # noqa: B010
    defaults: Any = Worker.__init__.__kwdefaults__
    defaults["idle_seconds"] = _IDLE_SECONDS
    setattr(seqserve.__main__, "Server", OpenServer)  # noqa: B010
    signal.signal(signal.SIGUSR1, fault.plant)
    seqserve.__main__.main(prog_name="soak.server")


if __name__ == "__main__":
    main()
