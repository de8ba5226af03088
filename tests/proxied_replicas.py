"""Replicas behind Envoy while one is killed, both are restarted, and a third one comes.

Envoy runs with ``deploy/proxies/envoy.yaml``, all replicas as endpoints and calls in turn; it asks
each for health, more often than in the file. An endpoint that is not there yet is one that is not
well, as an address that DNS has not told yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import yaml

from processes import free_port, stop_process
from proxy import PROXIES, running_proxy
from replica import PATIENCE_SECONDS, Load, Replica
from seqserve.client.channel import Connection

(ENVOY,) = [proxy for proxy in PROXIES if proxy.name == "envoy"]


def options(retries: bool) -> list[tuple[str, str | int]]:
    """Of our own clients, behind a proxy."""
    connection = Connection(watches_health=False, retries=retries)
    return [*connection.options(), ("grpc.use_local_subchannel_pool", 1)]


@dataclasses.dataclass(frozen=True)
class Phase:
    """What happened while calls went on."""

    name: str
    num_answered: int
    failures: dict[str, int]
    shares: list[int]
    """Calls answered by each replica that was there from begin to end."""
    seconds: float

    @property
    def unevenness(self) -> float:
        """How much more the busiest replica answered than the one with the least; 0: nothing."""
        return max(self.shares) / min(self.shares) - 1 if self.shares else 0.0


class ProxiedReplicas:
    """Two replicas behind Envoy, and a place for a third."""

    def __init__(self, store: Path, folder: Path) -> None:
        health_ports = [free_port() for _ in range(3)]
        self._replicas = [Replica(store, "--health-port", str(port)) for port in health_ports]
        self._endpoints = list(zip((one.port for one in self._replicas), health_ports, strict=True))
        self._folder = folder
        self._num_running = 2
        self.phases: list[Phase] = []

    async def __aenter__(self) -> ProxiedReplicas:
        self._stack = contextlib.AsyncExitStack()
        await asyncio.gather(*(one.start() for one in self._running))
        self._stack.callback(self._end)
        proxy = running_proxy(ENVOY, self._folder, *self._endpoints[0], self._spread)
        self._port = await self._stack.enter_async_context(proxy)
        await self._wait_until_all_serve()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    @property
    def _running(self) -> list[Replica]:
        return self._replicas[: self._num_running]

    async def run(self, num_calls: int) -> None:
        """All phases, with at least so many calls in each."""
        async with self._phase("two replicas"):
            await self._load.wait_for(num_calls)
        async with self._phase("one of two killed", retries=True, shared=()):
            await self._load.wait_for(num_calls // 2)
            self._replicas[0].process.kill()
            self._replicas[0].process.communicate()
            await self._load.wait_for(num_calls // 2)
            await self._replicas[0].start()
            await self._wait_until_all_serve()
        async with self._phase("both restarted", shared=()):
            for one in self._running:
                await self._load.wait_for(num_calls // 2)
                await stop_process(one.process)
                await self._load.wait_for(num_calls // 2)
                await one.start()
                await self._wait_until_all_serve()
        async with self._phase("a third one comes", shared=()):
            await self._load.wait_for(num_calls // 2)
            self._num_running = 3
            await self._replicas[2].start()
            await self._wait_until_all_serve()
        async with self._phase("three replicas"):
            await self._load.wait_for(num_calls)

    @contextlib.asynccontextmanager
    async def _phase(
        self, name: str, retries: bool = False, shared: Iterable[Replica] | None = None
    ) -> AsyncIterator[None]:
        """Calls go on meanwhile; with retries of the client, or without."""
        replicas = list(self._running if shared is None else shared)
        before = [await one.count_answered() for one in replicas]
        begin = time.monotonic()
        async with Load(self._port, options=options(retries)) as self._load:
            yield
        after = [await one.count_answered() for one in replicas]
        self.phases.append(
            Phase(
                name,
                self._load.num_answered,
                dict(self._load.failures),
                [late - early for late, early in zip(after, before, strict=True)],
                time.monotonic() - begin,
            )
        )

    async def _wait_until_all_serve(self) -> None:
        """Until each answers calls that came through Envoy."""
        before = Counter({one.port: await one.count_answered() for one in self._running})
        async with (
            Load(self._port, options=options(retries=False)) as load,
            asyncio.timeout(PATIENCE_SECONDS),
        ):
            while not all([await one.count_answered() > before[one.port] for one in self._running]):
                await load.wait_for(10)
        assert not load.failures

    def _spread(self, path: Path) -> None:
        """Puts all replicas into Envoy's configuration, to be called in turn."""
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        (cluster,) = content["static_resources"]["clusters"]
        cluster["lb_policy"] = "ROUND_ROBIN"
        (locality,) = cluster["load_assignment"]["endpoints"]
        locality["lb_endpoints"] = [
            {
                "endpoint": {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "health_check_config": {"port_value": health_port},
                }
            }
            for port, health_port in self._endpoints
        ]
        path.write_text(yaml.safe_dump(content), encoding="utf-8")

    def _end(self) -> None:
        for one in self._running:
            one.process.kill()
            one.process.communicate()
