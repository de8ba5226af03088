"""The health port from its first answer on: nobody is refused while the server takes it over."""

import asyncio
import socket
import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from processes import free_port, start_process, stop_process, wait_until_ready
from seqserve.config import ServerConfig
from seqserve.metrics import Metrics
from seqserve.registry import Registry
from seqserve.server import ATTENTION_SERVICE, SERVICES, Server

PATIENCE_SECONDS = 60.0


class Probe:
    """Connects again and again from the first time that it can, in a thread."""

    def __init__(self, port: int) -> None:
        self.num_connections = 0
        self.refusals: list[OSError] = []
        self._port = port
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Probe":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_ending.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), PATIENCE_SECONDS):
                    self.num_connections += 1
            except OSError as error:
                if self.num_connections:
                    self.refusals.append(error)


async def statuses(port: int, is_ready: asyncio.Event) -> list[tuple[str, int]]:
    """What health says of services, call after call on connections of their own, until ready.

    A call that comes in the moment in which the server of before closes may be cancelled, once.
    """
    found, num_cancelled = [], 0
    while not is_ready.is_set():
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            for name in ("", *SERVICES):
                try:
                    reply = await health_pb2_grpc.HealthStub(channel).Check(
                        health_pb2.HealthCheckRequest(service=name),
                        timeout=PATIENCE_SECONDS,
                        wait_for_ready=True,
                    )
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.CANCELLED:
                        raise
                    num_cancelled += 1
                    continue
                found.append((name, reply.status))
    assert num_cancelled <= 1
    return found


async def test_no_probe_is_refused_from_the_first_answer_on(store: Path) -> None:
    """Between the health of a process that loads and that of a server there is no gap."""
    port = free_port()
    process = start_process(store, "--no-preflight", "--health-port", str(port))
    is_ready = asyncio.Event()
    try:
        with Probe(port) as probe:
            checks = asyncio.create_task(statuses(port, is_ready))
            ports = await wait_until_ready(process)
            is_ready.set()
            found = await checks
            connections = probe.num_connections
            while probe.num_connections < connections + 20:
                assert not probe.refusals
                await asyncio.sleep(0)
        await stop_process(process)
    finally:
        process.kill()
    assert ports.health == port
    assert probe.refusals == []
    assert ("", health_pb2.HealthCheckResponse.NOT_SERVING) not in found
    assert {status for _, status in found} <= {
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    }


async def test_two_servers_do_not_share_a_health_port(store: Path) -> None:
    """Each probe would find one of them at random; the second says that it is taken, and ends."""
    port = free_port()
    first = start_process(store, "--no-preflight", "--health-port", str(port))
    try:
        await wait_until_ready(first)
        second = start_process(store, "--no-preflight", "--health-port", str(port))
        _, errors = await asyncio.to_thread(second.communicate, timeout=PATIENCE_SECONDS)
        await stop_process(first)
    finally:
        first.kill()
    assert second.returncode == 2
    assert errors.splitlines()[-1] == (
        f"error: health_port: 127.0.0.1:{port} cannot be bound; another process may be using it"
    )


async def test_services_are_known_from_the_first_answer_on(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks while the server starts is not told that there is no such service."""
    port = free_port()
    config = ServerConfig(models=store, port=port, health_port=0, metrics_port=0, threads=1)
    metrics = Metrics()
    server = Server(Registry.open(config, metrics), config, metrics)
    kind = type(grpc.aio.server())
    start = kind.start
    found: list[tuple[str, int]] = []

    async def start_and_ask(self: grpc.aio.Server) -> None:
        await start(self)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for name in ("", *SERVICES):
                reply = await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=name)
                )
                found.append((name, reply.status))

    monkeypatch.setattr(kind, "start", start_and_ask)
    await server.start()
    await server.stop()
    assert len(found) == 2 * (1 + len(SERVICES))
    serving = health_pb2.HealthCheckResponse.SERVING
    # No model of the store was exported with a graph that tells of the attention.
    unserved = {(ATTENTION_SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)}
    assert set(found) - unserved == {
        (name, serving) for name in ("", *SERVICES) if name != ATTENTION_SERVICE
    }
    assert unserved < set(found)
