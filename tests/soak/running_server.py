"""The server of a soak as a process, its log in a file."""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from processes import ROOT, read_metrics
from soak.vitals import Vitals, wait_for_rest

_REST_SECONDS = 30.0
_STOP_SECONDS = 60.0


class RunningServer:
    """A server process that is stopped with the context, or before."""

    def __init__(
        self, module: str, store: Path, log: Path, flags: list[str], variables: Mapping[str, str]
    ) -> None:
        """Prepares one.

        Args:
            module: That is run.
            store: The models.
            log: The file its standard error goes to.
            flags: More of its settings.
            variables: More of its environment.
        """
        self.log = log
        self._command = [sys.executable, "-m", module, "serve", "--models", str(store), *flags]
        for name in ("port", "health-port", "metrics-port"):
            self._command += [f"--{name}", "0"]
        paths = os.pathsep.join(str(ROOT / name) for name in ("service", "tests"))
        self._environment = {**os.environ, "PYTHONPATH": paths, **variables}

    async def __aenter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode()
        match = re.search(r"grpc=(\S+) health=(\S+) metrics=\S+:(\d+)", line)
        if match is None:
            code = await self._process.wait() if not line else None
            raise RuntimeError(
                f"the server did not start, but said {line!r} and ended with {code}: "
                f"{self.log.read_text(encoding='utf-8')}"
            )
        self.target, self.health_target, self._metrics_port = match[1], match[2], int(match[3])
        self._status = psutil.Process(self._process.pid)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @property
    def resident_bytes(self) -> int:
        """What it takes now."""
        return self._status.memory_info().rss

    async def read_metric(self, name: str) -> float:
        """The sum of all series of a metric, or of those whose names and labels begin so."""
        page = await read_metrics(self._metrics_port)
        values = [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(name)]
        return sum(map(float, values))

    def send_signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    async def rest(self) -> Vitals:
        """Waits until it holds nothing any more, and has said so in its log."""
        vitals = await wait_for_rest(self._status, self._metrics_port, _REST_SECONDS)
        self.send_signal(signal.SIGUSR2)
        return vitals

    async def stop(self) -> tuple[int | None, float]:
        """Asks it to end; returns its exit code, None if it had to be killed, and the seconds."""
        started_at = time.monotonic()
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            return None, time.monotonic() - started_at
        return self._process.returncode, time.monotonic() - started_at
