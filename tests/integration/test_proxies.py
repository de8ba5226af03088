"""Proxies of ``deploy/proxies`` change nothing: results, statuses and details are the server's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from foreign_call import CALLS
from foreign_server import call_server, foreign_server, settle
from grpc_web import ORIGIN, ask_for_leave, call_as_browser
from node_calls import call_from_node
from proxy import PROXIES, Proxy, running_proxy
from seqserve.server import MODEL_SERVICE
from seqserve.v1 import encoding_pb2, encoding_pb2_grpc
from serving import MakeServer

PATIENCE_SECONDS = 30.0
through_each = pytest.mark.parametrize(
    "proxy",
    [pytest.param(proxy, id=proxy.name, marks=pytest.mark.needs(proxy.name)) for proxy in PROXIES],
)


@through_each
@pytest.mark.needs("node", "grpc-js")
async def test_proxy_changes_nothing(
    proxy: Proxy,
    serving: MakeServer,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For gRPC's own library and for grpc-js; nothing is left of calls that were left."""
    async with (
        foreign_server(serving, store, tmp_path, monkeypatch) as running,
        running_proxy(proxy, tmp_path / "proxy", running.ports.grpc, running.ports.health) as port,
    ):
        expected = await call_server(running.ports.grpc)
        found = await call_server(port)
        (found_by_node,) = await call_from_node([f"127.0.0.1:{port}"], CALLS)
        await settle(running)
    for outcomes in (found, found_by_node):
        if proxy.loses_status_of:
            lost = outcomes.pop(proxy.loses_status_of)
            assert lost.code in ("CANCELLED", expected[proxy.loses_status_of].code)
        assert outcomes == {name: expected[name] for name in outcomes}


@pytest.mark.needs("envoy")
async def test_browsers_get_the_same_through_envoy(
    serving: MakeServer, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As grpc-web, which has no streams of requests; and pages that are allowed are told so."""
    calls = [call for call in CALLS if not call.method.client_streaming]
    (envoy,) = (proxy for proxy in PROXIES if proxy.name == "envoy")
    async with (
        foreign_server(serving, store, tmp_path, monkeypatch) as running,
        running_proxy(envoy, tmp_path / "proxy", running.ports.grpc, running.ports.health) as port,
    ):
        expected = await call_server(running.ports.grpc)
        found = {call.name: await asyncio.to_thread(call_as_browser, port, call) for call in calls}
        leave = await asyncio.to_thread(ask_for_leave, port, calls[0].path)
        await settle(running)
    assert found == {call.name: expected[call.name] for call in calls}
    assert leave["access-control-allow-origin"] == ORIGIN
    assert "POST" in leave["access-control-allow-methods"]


class Caller:
    """Calls without retries, and without asking for health, as this package's clients do."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = encoding_pb2_grpc.EncodingServiceStub(channel)

    async def call(self) -> str:
        """The status of a call."""
        request = encoding_pb2.EmbedRequest(inputs=["a"], model_name="sentence")
        try:
            await self._stub.Embed(request, timeout=PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async def call_until(self, code: str) -> None:
        """Calls until it comes to this."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.call() != code:
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def calling(port: int) -> AsyncIterator[Caller]:
    """A caller of a port of this machine."""
    options = [("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield Caller(channel)


@through_each
async def test_server_that_is_gone_is_unavailable(
    proxy: Proxy, serving: MakeServer, tmp_path: Path
) -> None:
    """Callers are told UNAVAILABLE by the proxy, and are served again when the server is back."""
    async with contextlib.AsyncExitStack() as stack:
        async with serving() as running:
            ports = running.ports
            port = await stack.enter_async_context(
                running_proxy(proxy, tmp_path / "proxy", ports.grpc, ports.health)
            )
        async with calling(port) as client:
            assert await client.call() == "UNAVAILABLE"
            async with serving(port=ports.grpc, health_port=ports.health):
                await client.call_until("OK")


@pytest.mark.needs("envoy", "haproxy")
@pytest.mark.parametrize(
    "proxy", [proxy for proxy in PROXIES if proxy.asks_for_health], ids=lambda proxy: proxy.name
)
async def test_server_that_is_not_well_gets_no_calls(
    proxy: Proxy, serving: MakeServer, tmp_path: Path
) -> None:
    """It says so on its port for health, and would answer still; it is called when it is well."""
    async with (
        serving() as running,
        running_proxy(proxy, tmp_path / "proxy", running.ports.grpc, running.ports.health) as port,
        calling(port) as client,
        calling(running.ports.grpc) as near,
    ):
        assert await client.call() == "OK"
        for state, code in (("NOT_SERVING", "UNAVAILABLE"), ("SERVING", "OK")):
            for name in ("", MODEL_SERVICE):
                running.server._health.set(
                    name, health_pb2.HealthCheckResponse.ServingStatus.Value(state)
                )
            await client.call_until(code)
            assert await near.call() == "OK"
