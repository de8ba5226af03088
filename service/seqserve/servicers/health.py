"""Health, as probes and balancing clients ask for it: which services serve, and each change of it.

grpcio's own servicer forgets all watchers of a service when one of them leaves; clients that watch
would then go on calling a server that shuts down.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # has no types
    """The health of one server. Event loop only."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {"": _SERVING}
        self._watchers: set[asyncio.Event] = set()
        self._is_stopping = False
        self._is_closed = False

    async def Check(  # noqa: N802
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> health_pb2.HealthCheckResponse:
        """Answers whether a service serves; NOT_FOUND if there is none of its name."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Sends the status of a service now and whenever it changes, until the server closes."""
        changed, last = asyncio.Event(), None
        self._watchers.add(changed)
        try:
            while not self._is_closed:
                changed.clear()
                status = self._statuses.get(request.service, _SERVICE_UNKNOWN)
                if status != last:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                    last = status
                    continue  # it may have changed while it was being written
                await changed.wait()
        finally:
            self._watchers.discard(changed)

    def set(self, service: str, status: int) -> None:
        """Sets the status of a service; a server that is stopping has said its last word."""
        if not self._is_stopping:
            self._statuses[service] = status
            self._wake()

    def stop(self) -> None:
        """Says for good that nothing serves."""
        for service in self._statuses:
            self.set(service, _NOT_SERVING)
        self._is_stopping = True

    def close(self) -> None:
        """Ends the watches, which have no end of their own."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        for changed in self._watchers:
            changed.set()
