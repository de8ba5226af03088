"""The processes that call: started, killed and replaced, and asked to finish."""

import asyncio
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from processes import ROOT

_START_SECONDS = 60.0
_FINISH_SECONDS = 90.0


class Callers:
    """Some callers at a time; one that is killed is followed by another with a name of its own."""

    def __init__(
        self, target: str, folder: Path, seed: int, num_callers: int, patience_seconds: float
    ) -> None:
        """Prepares them.

        Args:
            target: The server.
            folder: For their ledgers.
            seed: Of the plan.
            num_callers: At a time.
            patience_seconds: The deadline of their calls.
        """
        self._target = target
        self._folder = folder
        self._settings = ("--seed", str(seed), "--patience-seconds", str(patience_seconds))
        self._num_callers = num_callers
        self._num_started = 0
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self.killed: set[str] = set()
        self.crashed: list[str] = []
        """With their exit codes."""

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(self._start() for _ in range(self._num_callers)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()

    @property
    def ledgers(self) -> list[Path]:
        """Of all that there have been."""
        return sorted(self._folder.glob("caller-*.jsonl"))

    async def kill(self, choice: float) -> None:
        """Kills one, in the middle of its calls, and starts another."""
        names = [name for name in self._processes if name not in self.killed]
        name = names[int(choice * len(names))]
        self.killed.add(name)
        process = self._processes.pop(name)
        process.kill()
        await process.wait()
        await self._start()

    async def finish(self) -> None:
        """Has all finish their calls and end."""
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.close()
        for name, process in self._processes.items():
            async with asyncio.timeout(_FINISH_SECONDS):
                code = await process.wait()
            if code:
                self.crashed.append(f"{name} ended with {code}")

    async def _start(self) -> None:
        self._num_started += 1
        name = f"caller-{self._num_started}"
        ledger = self._folder / f"{name}.jsonl"
        paths = os.pathsep.join(str(ROOT / folder) for folder in ("service", "tests"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "soak.caller", self._target, name, str(ledger)),
            *self._settings,
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        )
        self._processes[name] = process
        async with asyncio.timeout(_START_SECONDS):
            while not ledger.is_file() or not ledger.stat().st_size:
                await asyncio.sleep(0.02)
                if process.returncode is not None:
                    raise RuntimeError(f"{name} did not start: exit code {process.returncode}")
