"""A network that stops carrying: both sides notice, and nothing is left of the calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import partitioned_client
from network_namespace import Wire
from processes import ROOT, read_metrics, start_process

pytestmark = pytest.mark.needs("ip", "namespaces")

PATIENCE_SECONDS = 30.0
KEEPALIVE_SECONDS = 0.5
"""The time of silence after which either side asks, and what it gives the other to answer."""
SLACK_SECONDS = 1.5
"""For whatever else the machine does."""
GAUGES = (
    "seqserve_requests_in_flight",
    "seqserve_running_sequences",
    "seqserve_waiting_sequences",
    "seqserve_live_rows",
)


class Server:
    """The server on its host."""

    def __init__(self, wire: Wire, store: Path) -> None:
        self._host = wire.server
        keepalive = str(KEEPALIVE_SECONDS)
        self.process = start_process(
            store,
            *("--host", wire.server.address, "--keepalive-seconds", keepalive),
            *("--keepalive-timeout-seconds", keepalive),
            *("--min-ping-seconds", str(KEEPALIVE_SECONDS / 5)),
            prefix=wire.server.prefix,
        )

    def find_ports(self) -> None:
        """Waits until it listens."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.search(r"grpc=\S+:(\d+) .*metrics=\S+:(\d+)", line)
        assert match, line
        self.port, self._metrics_port = map(int, match.groups())

    async def gauges(self) -> dict[str, float]:
        """What it says that it is doing, sums over labels."""
        connection = await asyncio.to_thread(self._host.connect, self._metrics_port)
        page = await read_metrics(self._metrics_port, connection)
        samples = re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", page.partition("\r\n\r\n")[2], re.M)
        return {
            gauge: sum(float(value) for name, value in samples if name == gauge) for gauge in GAUGES
        }

    def stop(self) -> list[dict[str, Any]]:
        """Ends it; returns its log."""
        self.process.terminate()
        _, log = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert self.process.returncode == 0, log
        return [json.loads(line) for line in log.splitlines()]


class Client:
    """The client on its host."""

    def __init__(self, wire: Wire, port: int) -> None:
        script = Path(partitioned_client.__file__)
        self.process = subprocess.Popen(
            [
                *(*wire.client.prefix, sys.executable, str(script)),
                *(f"{wire.server.address}:{port}", str(KEEPALIVE_SECONDS)),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT / "service")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def events(self, number: int) -> list[dict[str, Any]]:
        """The next ones that it tells."""
        stdout = self.process.stdout
        assert stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            return [json.loads(await asyncio.to_thread(stdout.readline)) for _ in range(number)]

    async def call_again(self) -> dict[str, Any]:
        """Has it make one more call, on a new connection."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        (event,) = await self.events(1)
        return event


@contextlib.asynccontextmanager
async def connected(wire: Wire, store: Path) -> AsyncIterator[tuple[Server, Client]]:
    """A server and a client whose streams are open."""
    server = Server(wire, store)
    try:
        await asyncio.to_thread(server.find_ports)
        client = Client(wire, server.port)
        try:
            assert {event["state"] for event in await client.events(2)} == {"open"}
            yield server, client
        finally:
            client.process.kill()
            client.process.communicate()
    finally:
        server.process.kill()
        server.process.communicate()


@pytest.mark.parametrize(
    ("part", "join"),
    [(Wire.lose_packets, Wire.find_packets), (Wire.pull, Wire.plug)],
    ids=["packets-lost", "link-down"],
)
async def test_partition_ends_calls_on_both_sides(store: Path, part: Any, join: Any) -> None:
    """A stream that is silent and one that is busy: within keepalive's time and timeout.

    The server's handlers are cancelled and its gauges are 0, the client is told UNAVAILABLE, and a
    call that is made when the network carries again is answered.
    """
    with Wire() as wire:
        async with connected(wire, store) as (server, client):
            before = await server.gauges()
            started_at = time.monotonic()
            part(wire)
            while any((await server.gauges()).values()):
                assert time.monotonic() - started_at < PATIENCE_SECONDS
            server_seconds = time.monotonic() - started_at
            ends = await client.events(2)
            client_seconds = time.monotonic() - started_at
            join(wire)
            again = await client.call_again()
            log = await asyncio.to_thread(server.stop)
    assert before["seqserve_requests_in_flight"] == 2
    limit = 2 * KEEPALIVE_SECONDS + SLACK_SECONDS
    assert (server_seconds < limit, client_seconds < limit) == (True, True), (
        server_seconds,
        client_seconds,
    )
    assert sorted((end["stream"], end["code"]) for end in ends) == [
        ("busy", "UNAVAILABLE"),
        ("silent", "UNAVAILABLE"),
    ]
    calls = [line for line in log if line["event"] == "call"]
    assert [(line["code"], line["reason"]) for line in calls] == [
        *[("CANCELLED", "cancelled")] * 2,
        ("OK", ""),
    ]
    assert [line for line in log if line["level"] in ("error", "critical")] == []
    assert again == {"state": "called", "number": 1}
