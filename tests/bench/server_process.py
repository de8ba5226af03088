"""Servers as processes: ours as its users start it, and those of peers."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.json_process import ProcessError

_STOP_SECONDS = 45.0
_MAX_REQUEST_SECONDS = "600"
"""Hundreds of sentences with four beams are one request; the default deadline is a minute."""


class ServerProcess(NamedTuple):
    """A server that has answered its first call."""

    target: str
    process: subprocess.Popen[str]
    load_seconds: float
    """From the start of the process to its first answer."""

    def memory(self) -> dict[str, int]:
        """Resident bytes, those of them that are no mapped files, and the most there ever were."""
        memory = psutil.Process(self.process.pid).memory_info()
        return {
            "resident_bytes": memory.rss,
            "private_bytes": memory.rss - memory.shared,
            "peak_bytes": _peak_bytes(self.process.pid),
        }


def _peak_bytes(pid: int) -> int:
    """The high-water mark of resident memory, ``VmHWM`` of proc(5)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@contextlib.contextmanager
def running_seqserve(
    store: Path, settings: Mapping[str, str], call_first: Callable[[str], None]
) -> Iterator[ServerProcess]:
    """Runs ``seqserve serve`` with settings, by their names, and sends it a first call."""
    flags = {
        "max_request_seconds": _MAX_REQUEST_SECONDS,
        "log_level": "warning",
        **dict.fromkeys(("port", "health_port", "metrics_port"), "0"),
        **settings,
        "models": str(store),
    }
    command = ["seqserve", "serve"]
    for name, value in flags.items():
        command += [f"--{name.replace('_', '-')}", value]
    with running_module("seqserve", command, call_first) as server:
        yield server


@contextlib.contextmanager
def running_module(
    side: str, module: list[str], call_first: Callable[[str], None]
) -> Iterator[ServerProcess]:
    """Runs a server until the context ends.

    Args:
        side: Whose it is.
        module: The module to run, with its arguments; it prints ``grpc=HOST:PORT`` when it serves.
        call_first: Sends a first call to an address.

    Raises:
        ProcessError: It does not start, or does not stop cleanly.
    """
    command = [sys.executable, "-m", *module]
    started_at = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        match = re.search(r"grpc=(\S+)", line)
        if match is None:
            raise ProcessError(f"the server of {side} did not start; it said: {line.strip()}")
        call_first(match[1])
        yield ServerProcess(match[1], process, time.perf_counter() - started_at)
    finally:
        process.terminate()
        try:
            code = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        process.stdout.close()
    if code:
        raise ProcessError(f"the server of {side} stopped with exit code {code}")
