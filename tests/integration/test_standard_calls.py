"""The services of gRPC itself, health and reflection: their errors are a status of ours, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from serving import MakeServer, RunningServer, status_of

PATIENCE_SECONDS = 20.0
MALFORMED = "INVALID_ARGUMENT: the request's bytes are not a message of its type"
INTERNAL = "INTERNAL: internal error; the server's log has the details under this request id"


@pytest.fixture
async def running(serving: MakeServer) -> AsyncIterator[RunningServer]:
    """A server."""
    async with serving() as server:
        yield server


@pytest.mark.parametrize("port", ["grpc", "health"])
@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe"], ids=["protobuf", "utf-8"])
@pytest.mark.parametrize("name", ["Check", "Watch"])
async def test_malformed_health_checks_are_invalid(
    running: RunningServer, port: str, data: bytes, name: str
) -> None:
    """On both ports, with details as all refusals have; the next check is answered."""
    address = f"127.0.0.1:{getattr(running.ports, port)}"
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(f"/grpc.health.v1.Health/{name}", request_serializer=bytes)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(data, timeout=PATIENCE_SECONDS)
        stub = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest())
    assert status_of(caught.value) == MALFORMED
    trailers = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.metadata["request_id"] == trailers["x-request-id"]
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_malformed_reflection_request_ends_its_stream(running: RunningServer) -> None:
    """Those before it are answered, and so is the next stream."""
    listed = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    call: Any = running.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", request_serializer=bytes
    )
    stream = call(timeout=PATIENCE_SECONDS)
    await stream.write(listed)
    assert await stream.read() != grpc.aio.EOF
    await stream.write(b"\xff\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert status_of(caught.value) == MALFORMED
    (answer,) = [one async for one in call(iter([listed]), timeout=PATIENCE_SECONDS)]
    services = reflection_pb2.ServerReflectionResponse.FromString(answer)
    assert len(services.list_services_response.service) == 7


async def test_faults_of_these_services_leak_nothing(
    running: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INTERNAL on the wire, and the text in the log, once."""

    def fail(*_: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(ReflectionServicer, "_list_services", fail)
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with structlog.testing.capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ServerReflectionInfo(iter([request])).read()
    assert status_of(caught.value) == INTERNAL
    assert "secret" not in str(caught.value)
    (entry,) = [one for one in logs if one["log_level"] == "error"]
    assert str(entry["exc_info"]) == "secret path"


async def test_watchers_hear_of_changes_whoever_leaves(running: RunningServer) -> None:
    """Each of them, of the process and of a service; the stream ends when the server does."""
    stub = health_pb2_grpc.HealthStub(running.channel)
    watches = [
        stub.Watch(health_pb2.HealthCheckRequest(service=service))
        for service in ("", "", "", "seqserve.v1.GenerationService", "nope")
    ]
    states = [[(await watch.read()).status] for watch in watches]
    watches.pop(1).cancel()
    states.pop(1)
    stop = asyncio.create_task(running.server.stop())
    for watch, found in zip(watches, states, strict=True):
        while (reply := await watch.read()) is not grpc.aio.EOF:
            found.append(reply.status)
        assert await watch.code() is grpc.StatusCode.OK
    await stop
    kind = health_pb2.HealthCheckResponse
    assert states == [[kind.SERVING, kind.NOT_SERVING]] * 3 + [[kind.SERVICE_UNKNOWN]]


async def test_watchers_that_leave_are_no_fault(running: RunningServer) -> None:
    """Nothing is logged as an error."""
    stub = health_pb2_grpc.HealthStub(running.channel)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            watch.cancel()
        await stub.Check(health_pb2.HealthCheckRequest())
    assert [one for one in logs if one["log_level"] == "error"] == []
