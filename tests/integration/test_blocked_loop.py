"""An event loop that does not answer: probes fail, and the log says where it hangs."""

import concurrent.futures

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving import MakeServer


def check_health(port: int, seconds: float) -> str:
    """The status that a kubelet's probe ends with; from a thread."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=seconds)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


async def test_liveness_fails_and_the_stack_is_logged(serving: MakeServer) -> None:
    """While a call of ours waits on the loop for something else; afterwards all is well."""
    with structlog.testing.capture_logs() as logs:
        async with serving(watchdog_seconds=0.1) as running:
            with concurrent.futures.ThreadPoolExecutor(1) as threads:
                # The probe outlasts the second between two looks of the watchdog.
                probe = threads.submit(check_health, running.ports.health, 2.5)
                blocked = probe.result()  # on the loop, which nobody should do
            stub = health_pb2_grpc.HealthStub(running.channel)
            state = await stub.Check(health_pb2.HealthCheckRequest())
    assert blocked == "DEADLINE_EXCEEDED"
    assert state.status == health_pb2.HealthCheckResponse.SERVING
    (report,) = [entry for entry in logs if entry["event"] == "event loop blocked"]
    assert "blocked = probe.result()" in report["stacks"]["MainThread"]
