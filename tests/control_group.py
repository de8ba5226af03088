"""A control group of our own, of either version, with limits for the processes that join it.

It is made inside the group that this process is in, so that limits of that one hold as well.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

Controller = Literal["cpu", "memory"]
_MOUNT = Path("/sys/fs/cgroup")
_PATIENCE_SECONDS = 10.0


def own_group(controller: Controller) -> Path | None:
    """The folder of the group that this process is in; None where there is no such controller."""
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return _MOUNT / controllers / path.lstrip("/")
        if not controllers:
            group = _MOUNT / path.lstrip("/")
            enabled = group / "cgroup.subtree_control"
            if enabled.is_file() and controller in enabled.read_text(encoding="ascii").split():
                return group
    return None


def is_available(controller: Controller) -> bool:
    """Whether a group can be made here."""
    group = own_group(controller)
    return group is not None and group.is_dir() and os.access(group, os.W_OK)


class ControlGroup:
    """A group that is removed with the context; its processes must have ended."""

    def __init__(self, controller: Controller) -> None:
        parent = own_group(controller)
        assert parent is not None
        self.folder = parent / f"seqserve-{secrets.token_hex(4)}"
        self._is_unified = (parent / "cgroup.controllers").is_file()

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command that is to run in it."""
        return ("sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "join")

    def __enter__(self) -> Self:
        self.folder.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (self.folder / "cgroup.procs").read_text(encoding="ascii"):
            assert time.monotonic() < deadline, "a process is left in the group"
        self.folder.rmdir()

    def limit_cpu(self, cpus: float) -> None:
        """Gives its processes so much CPU time a second, in seconds."""
        period = 100_000
        if self._is_unified:
            self._write("cpu.max", f"{round(cpus * period)} {period}")
        else:
            self._write("cpu.cfs_period_us", str(period))
            self._write("cpu.cfs_quota_us", str(round(cpus * period)))

    def limit_memory(self, num_bytes: int) -> None:
        """Has the kernel kill what takes more."""
        self._write("memory.max" if self._is_unified else "memory.limit_in_bytes", str(num_bytes))

    @property
    def memory_bytes(self) -> int:
        """What its processes take."""
        name = "memory.current" if self._is_unified else "memory.usage_in_bytes"
        return int((self.folder / name).read_text(encoding="ascii"))

    @property
    def num_killed(self) -> int:
        """Processes that the kernel killed for want of memory."""
        name = "memory.events" if self._is_unified else "memory.oom_control"
        lines = (self.folder / name).read_text(encoding="ascii").splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="ascii")
