"""Proxies of ``deploy/proxies``, each as a process in front of a running server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

FOLDER = Path(__file__).parents[1] / "deploy" / "proxies"
_PATIENCE_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Proxy:
    """A program and its configuration."""

    name: str
    file: str
    command: Callable[[str], tuple[str, ...]]
    """What to run, given the path of the configuration."""
    asks_for_health: bool = True
    """Whether it asks servers, or finds out by calls that fail."""
    loses_status_of: str = ""
    """The call whose status it may replace by CANCELLED: it is refused while it is being sent, and
    HAProxy 2.6 resets the stream before it has passed the answer on, now and then."""


PROXIES = (
    Proxy(
        "envoy",
        "envoy.yaml",
        lambda path: ("-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"),
    ),
    Proxy(
        "nginx",
        "nginx.conf",
        lambda path: ("-c", path, "-e", "stderr", "-g", "daemon off;"),
        asks_for_health=False,
    ),
    Proxy(
        "haproxy",
        "haproxy.cfg",
        lambda path: ("-db", "-q", "-f", path),
        loses_status_of="too-large-message",
    ),
)


def configure(proxy: Proxy, folder: Path, port: int, grpc_port: int, health_port: int) -> Path:
    """The file of the proxy with other ports and a folder of its own; it asks for health often."""
    folder.mkdir(mode=0o755)
    text = (FOLDER / proxy.file).read_text(encoding="utf-8")
    for written, wanted in (
        ("50051", str(grpc_port)),
        ("50052", str(health_port)),
        ("8080", str(port)),
        ("0.0.0.0", "127.0.0.1"),
        ("bind :", "bind 127.0.0.1:"),
        ("listen ", "listen 127.0.0.1:"),
        ("/tmp/", f"{folder}/"),
        ("interval: 5s", "interval: 0.2s"),
        ("inter 5s fastinter 1s downinter 1s", "inter 200ms"),
    ):
        text = text.replace(written, wanted)
    path = folder / proxy.file
    path.write_text(text, encoding="utf-8")
    return path


@contextlib.asynccontextmanager
async def running_proxy(
    proxy: Proxy,
    folder: Path,
    grpc_port: int,
    health_port: int,
    change: Callable[[Path], object] = lambda path: None,
) -> AsyncIterator[int]:
    """Starts a proxy; the port that it listens on, once it lets calls through.

    Args:
        proxy: Which.
        folder: Of its own, to be made.
        grpc_port: Of the server.
        health_port: Of the server.
        change: What is done to its configuration beside.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    path = configure(proxy, folder, port, grpc_port, health_port)
    change(path)
    program = shutil.which(proxy.name)
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program, *proxy.command(str(path)), cwd=folder, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not await is_serving(port):
                assert process.returncode is None, f"{proxy.name} has ended"
                await asyncio.sleep(0.1)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def is_serving(port: int) -> bool:
    """Whether a server says so at a port, or through the proxy that listens there."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        try:
            reply = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=2
            )
        except grpc.aio.AioRpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
