"""The server as a process of its own."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


def start_process(
    store: Path,
    *flags: str,
    prefix: tuple[str, ...] = (),
    program: tuple[str, ...] = ("-m", "seqserve"),
) -> subprocess.Popen[str]:
    """Starts ``seqserve serve``, or another program with its flags, on free ports.

    Args:
        store: Its models.
        flags: Further flags.
        prefix: A command that confines it, say.
        program: What Python runs.
    """
    return subprocess.Popen(
        [
            *prefix,
            *(sys.executable, *program, "serve", "--models", str(store)),
            *("--port", "0", "--health-port", "0", "--metrics-port", "0", *flags),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "service")},
    )


async def read_metrics(port: int, connection: socket.socket | None = None) -> str:
    """The page Prometheus scrapes, of this host or over a connection to another."""
    if connection is None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    else:
        reader, writer = await asyncio.open_connection(sock=connection)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return page


class ReadyPorts(NamedTuple):
    """Where a process listens."""

    grpc: int
    health: int
    metrics: int


async def wait_until_ready(process: subprocess.Popen[str]) -> ReadyPorts:
    """Reads the one line that a server prints when it is ready."""
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    match = re.fullmatch(
        r"seqserve ready: grpc=\S+:(\d+) health=\S+:(\d+) metrics=\S+:(\d+) .*\n", line
    )
    assert match, (line, process.poll())
    return ReadyPorts(*map(int, match.groups()))


async def stop_process(process: subprocess.Popen[str], seconds: float = 30) -> str:
    """Sends SIGTERM; returns what was logged by a process that ends with 0."""
    process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.to_thread(process.communicate, timeout=seconds)
    assert process.returncode == 0, errors
    return errors


def free_port() -> int:
    """A port that nobody has right now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
