"""An event loop that does not answer: probes fail, and the log says where it hangs."""

import asyncio
import concurrent.futures
import time

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.registry import Registry
from seqserve.v1 import model_pb2
from serving import MakeServer

BLOCKED_SECONDS = 3.0
PROBE_SECONDS = 1.0
"""That a kubelet waits, by default."""


def check_health(port: int) -> str:
    """The status that a kubelet's probe ends with; from a thread."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_SECONDS)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


async def test_liveness_fails_and_the_stack_is_logged(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a call of ours sleeps on the loop for three seconds; afterwards all is well."""
    loop = asyncio.get_running_loop()
    with (
        structlog.testing.capture_logs() as logs,
        concurrent.futures.ThreadPoolExecutor(1) as threads,
    ):
        async with serving(watchdog_seconds=1.0) as running:
            models = running.registry.models
            probes: list[concurrent.futures.Future[str]] = []

            def sleep(registry: Registry) -> object:
                probes.append(threads.submit(check_health, running.ports.health))
                time.sleep(BLOCKED_SECONDS)  # on the loop, which nobody should do
                return models

            with monkeypatch.context() as patch:
                patch.setattr(Registry, "models", property(sleep))
                began_at = loop.time()
                await running.model.ListModels(model_pb2.ListModelsRequest())
                assert loop.time() - began_at >= BLOCKED_SECONDS
            stub = health_pb2_grpc.HealthStub(running.channel)
            state = await stub.Check(health_pb2.HealthCheckRequest())
            blocked = [probe.result() for probe in probes]
    assert blocked[0] == "DEADLINE_EXCEEDED"
    assert state.status == health_pb2.HealthCheckResponse.SERVING
    reports = [entry for entry in logs if entry["event"] == "event loop blocked"]
    assert len(reports) == 1
    assert "time.sleep(BLOCKED_SECONDS)" in reports[0]["stacks"]["MainThread"]
