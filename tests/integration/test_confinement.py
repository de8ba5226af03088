"""A server in a container's confinement: little CPU time, little memory, few rights."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from confined_root import MODELS, USER, confinement
from control_group import ControlGroup
from processes import ROOT, start_process
from seqserve.client import AsyncClient
from seqserve.v1 import encoding_pb2, encoding_pb2_grpc

PATIENCE_SECONDS = 60.0
MEMORY_BYTES = 400 * 2**20
"""Enough to start and to answer, and not for what is asked at once later."""


class Server:
    """The server as a process of its own."""

    def __init__(self, store: Path, *flags: str, prefix: tuple[str, ...]) -> None:
        self.process = start_process(store, *flags, prefix=prefix)

    async def listen(self) -> str:
        """Waits until it listens; returns its address."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await asyncio.to_thread(self.process.stdout.readline)
        match = re.search(r"grpc=(\S+)", line)
        assert match, line or self.process.communicate()
        return match[1]

    @property
    def folder(self) -> Path:
        """What the kernel tells of it."""
        return Path(f"/proc/{self.process.pid}")

    def status(self, name: str) -> str:
        """A line of its status."""
        text = (self.folder / "status").read_text(encoding="utf-8")
        (value,) = re.findall(rf"^{name}:(.*)$", text, re.M)
        return " ".join(value.split())

    def num_threads(self) -> int:
        """Threads that are Python's or onnxruntime's; gRPC names its own."""
        names = [path.read_text(encoding="ascii") for path in self.folder.glob("task/*/comm")]
        own = (self.folder / "comm").read_text(encoding="ascii")
        return sum(name == own for name in names)

    async def stop(self) -> str:
        """Ends it; returns its log."""
        self.process.terminate()
        _, log = await asyncio.to_thread(self.process.communicate, timeout=PATIENCE_SECONDS)
        assert self.process.returncode == 0, log
        return log


@contextlib.asynccontextmanager
async def started(
    store: Path, *flags: str, prefix: tuple[str, ...]
) -> AsyncIterator[tuple[Server, str]]:
    """A server that listens, and its address."""
    server = Server(store, *flags, prefix=prefix)
    try:
        yield server, await server.listen()
    finally:
        server.process.kill()
        await asyncio.to_thread(server.process.communicate)


async def check_served(target: str) -> None:
    """Has it compute something with both kinds of models."""
    async with AsyncClient(target, timeout_seconds=PATIENCE_SECONDS) as client:
        assert (await client.embed(["a b"], model="sentence")).vectors.shape[0] == 1
        (generation,) = await client.generate([[5, 6, 1]], model="tiny", max_new_tokens=3)
        assert generation.hypotheses[0].token_ids


@pytest.fixture(params=["taskset", "quota"])
def limited(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """What to put before a command that is to have one CPU, or half of one's time."""
    if request.param == "taskset":
        yield ("taskset", "--cpu-list", "0")
        return
    with ControlGroup("cpu") as group:
        group.limit_cpu(0.5)
        yield group.prefix


@pytest.mark.needs("taskset", "cpu group")
async def test_limited_process_computes_with_one_thread(
    store: Path, limited: tuple[str, ...]
) -> None:
    """The log says so, there are fewer threads than with two, and onnxruntime complains of none."""
    async with started(store, "--no-preflight", prefix=limited) as (server, target):
        await check_served(target)
        num_threads = server.num_threads()
        log = await server.stop()
    flags = ("--no-preflight", "--threads", "2")
    async with started(store, *flags, prefix=limited) as (server, target):
        more_threads = server.num_threads()
    opened = [json.loads(line) for line in log.splitlines() if "model opened" in line]
    assert [line["threads"] for line in opened] == [1] * 3
    assert num_threads < more_threads
    assert "pthread_setaffinity" not in log
    assert [line for line in log.splitlines() if json.loads(line)["level"] != "info"] == []


@pytest.fixture
def confined(store: Path, tmp_path: Path) -> tuple[str, ...]:
    """What to put before a command that is to run as in the image; the store is ``/models``."""
    copy = tmp_path / "models"
    shutil.copytree(store, copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    root = tmp_path / "root"
    root.mkdir()
    return confinement(root, copy, ROOT / "service")


@pytest.mark.needs("setpriv", "namespaces")
async def test_server_needs_no_rights_and_writes_nothing(confined: tuple[str, ...]) -> None:
    """User 65532 without capabilities, on a root file system that is read-only but for ``/tmp``."""
    attempt = "for folder; do true > $folder/file && echo $folder; done; true"
    folders = ["/", "/etc", "/usr", "/models", str(ROOT / "service"), "/tmp"]
    tried = await asyncio.to_thread(
        subprocess.run,
        [*confined, "sh", "-c", attempt, "try", *folders],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (tried.stdout, tried.returncode) == ("/tmp\n", 0), tried.stderr
    async with started(MODELS, prefix=confined) as (server, target):
        await check_served(target)
        assert server.status("Uid") == server.status("Gid") == " ".join([str(USER)] * 4)
        assert server.status("Groups") == ""
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(server.status(name), 16) == 0
        assert server.status("NoNewPrivs") == "1"
        mounts = (server.folder / "mountinfo").read_text(encoding="utf-8").splitlines()
        options = {line.split()[4]: line.split()[5].split(",") for line in mounts}
        assert [path for path in options if "rw" in options[path]] == ["/tmp"]
        written = (server.folder / "root" / "tmp").iterdir()
        assert [path.name for path in written if path.stat().st_uid == USER] == []
        log = await server.stop()
    assert [line for line in log.splitlines() if json.loads(line)["level"] != "info"] == []


@pytest.mark.needs("memory group")
async def test_limit_of_memory_ends_the_server_and_a_restart_serves(store: Path) -> None:
    """The kernel kills what exceeds its control group's limit: exit code 137 of a container.

    That is signal 9, which Python tells as -9. Callers are told UNAVAILABLE; a server that is
    started again under the same limit serves. A GPU that has no memory left is another matter, and
    has not been tried: there was none.
    """
    request = encoding_pb2.EmbedRequest(
        model_name="sentence", inputs=["a b c " * 40_000] * 30, truncate=True
    )
    with ControlGroup("memory") as group:
        group.limit_memory(MEMORY_BYTES)
        async with started(store, prefix=group.prefix) as (server, target):
            await check_served(target)
            assert group.num_killed == 0
            async with grpc.aio.insecure_channel(target) as channel:
                stub = encoding_pb2_grpc.EncodingServiceStub(channel)
                calls = [stub.Embed(request, timeout=PATIENCE_SECONDS) for _ in range(24)]
                codes = [await call.code() for call in calls]
            code = await asyncio.to_thread(server.process.wait, PATIENCE_SECONDS)
            assert group.num_killed == 1
        assert code == -signal.SIGKILL
        assert set(codes) == {grpc.StatusCode.UNAVAILABLE}
        async with started(store, prefix=group.prefix) as (server, target):
            await check_served(target)
            await server.stop()
