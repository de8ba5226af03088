"""Health while models are opened: the process lives, and nothing is served yet.

The main thread is busy then, and has no event loop that would answer. The port of calls is closed,
so that callers get UNAVAILABLE. The health port is shared with the server that starts: it listens
before this one ends, so that no probe is refused in between.
"""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from seqserve.config import ServerConfig
from seqserve.transport import bind, check_is_free

_CLOSE_SECONDS = 0.25
"""Given to probes that are being answered."""


class LoadingHealth:
    """Answers probes on the health port, from threads, within its block.

    Whoever else listens there within the block must be told to share the port.
    """

    def __init__(self, config: ServerConfig, services: Iterable[str]) -> None:
        """Listens.

        Args:
            config: The settings.
            services: Names of what is not served yet.

        Raises:
            ConfigurationError: The port is taken.
        """
        servicer = health.HealthServicer()
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        for service in services:
            servicer.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        check_is_free(config.host, config.health_port, "health_port")
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="loading-health")
        self._server = grpc.server(self._threads, options=(("grpc.so_reuseport", 1),))
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        self.port = bind(self._server, config.host, config.health_port, "health_port")
        """Where it listens, also where 0 was asked for."""

    async def __aenter__(self) -> Self:
        self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._server.stop(_CLOSE_SECONDS).wait()
        self._threads.shutdown()
