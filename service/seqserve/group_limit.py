"""Limits of the control groups that this process is in: CPU time and memory.

A container sees its own group where groups are mounted. A service of systemd, or a shell, is in one
somewhere below, and the limits of all groups above hold, too.

What cannot be read is told and left out: a server with all that affinity allows, or with the memory
of the machine, is better than none.

Source: ``cgroups(7)``; the kernel's ``cgroup-v2.rst`` and ``cgroup-v1/``.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import structlog

_log = structlog.get_logger(__name__)

_MEMBERSHIPS = Path("proc/self/cgroup")
_MOUNT = Path("sys/fs/cgroup")
_UNLIMITED = ("max", "-1")
_Controller = Literal["cpu", "memory"]


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs whose time the process may use, possibly a fraction; None without a limit.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    quotas = []
    for folder in _groups("cpu", root):
        unified, quota, period = (
            folder / name for name in ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
        files = (unified,) if _is_there(unified) else (quota, period)  # version 2, version 1
        if all(map(_is_there, files)) and (numbers := _read_numbers(files, 2)):
            quotas.append(numbers[0] / numbers[1])
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes after which the kernel kills the process; None without a limit.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    limits = []
    for folder in _groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):  # version 2, version 1
            path = folder / name
            if _is_there(path) and (numbers := _read_numbers((path,), 1)):
                limits.append(numbers[0])
    return min(limits, default=None)


def _groups(controller: _Controller, root: Path) -> Iterator[Path]:
    """The group of the process and those above it, in both versions of the hierarchy."""
    memberships = root / _MEMBERSHIPS
    paths: dict[str, Path] = {"": Path(), controller: Path()}
    if _is_there(memberships):
        try:
            for line in memberships.read_text(encoding="utf-8").splitlines():
                _, controllers, name = line.split(":", 2)
                for one in controllers.split(","):
                    paths[one] = Path(name.lstrip("/"))
        except (OSError, ValueError) as error:
            _tell(memberships, str(error))
    for mount, path in ((Path(), paths[""]), (Path(controller), paths[controller])):
        # NOTE: without a namespace of groups the path is that of the machine, which a container
        # does not see: then only the mount itself has files. Above it (..) there is nothing.
        for folder in (path, *path.parents) if ".." not in path.parts else (Path(),):
            yield root / _MOUNT / mount / folder


def _read_numbers(files: tuple[Path, ...], count: int) -> list[int]:
    """The numbers of a limit; none if there is no limit, or if the files do not say."""
    path = files[0]
    try:
        words = []
        for path in files:
            words += path.read_text(encoding="ascii").split()
        if len(words) != count:
            raise ValueError(f"there must be {count} words, but there are {len(words)}")
        if words[0] in _UNLIMITED:
            return []
        numbers = [int(word) for word in words]
        if numbers[0] < 0 or any(period <= 0 for period in numbers[1:]):
            raise ValueError(f"out of range: {' '.join(words)}")
    except (OSError, ValueError) as error:
        _tell(path, str(error))
        return []
    return numbers


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a folder that nobody may look into
        _tell(path, str(error))
        return False


@functools.cache  # limits are read for every model, and told once
def _tell(path: Path, reason: str) -> None:
    _log.warning(
        "a limit of a control group cannot be read and is left out", file=str(path), reason=reason
    )
