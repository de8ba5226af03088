"""The server of the demonstration: a process of its own, which stops with it."""

import contextlib
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from rich.console import Console

_READY_SECONDS = 60.0
_STOP_SECONDS = 45.0


class DemoError(Exception):
    """Something did not work; the message says what."""


class RunningServer(NamedTuple):
    """A server in a process of its own."""

    target: str
    process: subprocess.Popen[str]


@contextlib.contextmanager
def running_server(store: Path, ports: dict[str, int], console: Console) -> Iterator[RunningServer]:
    """Runs ``seqserve serve`` until the context ends.

    Raises:
        DemoError: It does not get ready, or does not stop cleanly.
    """
    command = [
        *(sys.executable, "-m", "seqserve", "serve", "--models", str(store)),
        *("--log-level", "warning"),
    ]
    for name in ("port", "health-port", "metrics-port"):
        command += [f"--{name}", str(ports.get(name, 0))]
    console.rule("serving")
    started_at = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C is for this process, which then stops the server: with one signal, not two.
        process_group=0,
    )
    handlers = {
        number: signal.signal(number, lambda number, frame: sys.exit(128 + number))
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    assert process.stdout is not None
    assert process.stderr is not None
    errors: deque[str] = deque(maxlen=20)
    reader = threading.Thread(target=errors.extend, args=(process.stderr,), daemon=True)
    reader.start()
    try:
        line = _first_line(process.stdout)
        match = re.search(r"grpc=(\S+)", line)
        if match is None:
            process.wait(_STOP_SECONDS)
            raise DemoError("the server did not start:\n" + "".join(errors))
        console.print(f"{line.strip()} ({time.monotonic() - started_at:.1f} s)")
        yield RunningServer(match[1], process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        exit_code = process.wait(_STOP_SECONDS)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        reader.join()
        for stream in (process.stdout, process.stderr):
            stream.close()
    if exit_code:
        raise DemoError(f"the server stopped with exit code {exit_code}:\n" + "".join(errors))
    console.print("server stopped cleanly, exit code 0")


def _first_line(stream: IO[str]) -> str:
    """The first line of a process's output; empty if it ends or is late."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        return lines.get(timeout=_READY_SECONDS)
    except queue.Empty as error:
        raise DemoError(f"the server was not ready within {_READY_SECONDS:.0f} s") from error
