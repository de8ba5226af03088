"""The HTTP port: who may connect, and what becomes of connections."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import structlog

from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError
from seqserve.playground.connection import GONE, Connection
from seqserve.playground.handshake import Handshake

_log = structlog.get_logger(__name__)
_MAX_CONNECTIONS = 128
"""At the same time. A further one takes the place of one without a request, or is closed."""
_END_SECONDS = 2.0
"""Given to answers that are being written when the server stops, at least: to be told errors, too.
"""


class Listener:
    """Listens, and serves what connects. Event loop only."""

    def __init__(
        self,
        config: ServerConfig,
        handshake: Handshake | None,
        serve: Callable[[Connection], Awaitable[None]],
    ) -> None:
        """Prepares.

        Args:
            config: The settings.
            handshake: TLS; None for connections in the clear.
            serve: Answers the requests of a connection until it ends.
        """
        self._config = config
        self._handshake = handshake
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Connection | None] = {}

    async def start(self) -> int:
        """Listens; returns the port, also where 0 was asked for.

        Raises:
            ConfigurationError: The port is taken.
        """
        host, port = self._config.host, self._config.playground_port
        is_six = ":" in host
        try:
            listening = socket.create_server(
                (host, port),
                family=socket.AF_INET6 if is_six else socket.AF_INET,
                dualstack_ipv6=is_six and socket.has_dualstack_ipv6(),
            )
        except OSError as error:
            raise ConfigurationError(
                f"playground_port: {host}:{port} cannot be bound; another process may be using it"
            ) from error
        self._server = await asyncio.start_server(self._accept, sock=listening)
        bound: int = listening.getsockname()[1]
        return bound

    async def stop(self, seconds: float) -> None:
        """Accepts nobody any more, answers the requests that have come, and ends what is left.

        Args:
            seconds: Until then. Who has not asked for anything is not waited for.
        """
        if self._server is not None:
            self._server.close()
        tasks = set(self._connections)
        for task, connection in self._connections.items():
            if connection is None:
                task.cancel()
            else:
                connection.finish()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=max(seconds, _END_SECONDS))
            if left:
                _log.warning("playground's drain ran out of time", unanswered=len(left))
            for task in left:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= _MAX_CONNECTIONS and not self._make_room():
            _log.warning("playground has too many connections", most=_MAX_CONNECTIONS)
            writer.transport.abort()
            return
        # asyncio forgets it for sockets made elsewhere: a body would come 40 ms after its head.
        accepted = writer.get_extra_info("socket")
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[task] = None  # while it shakes hands
        try:
            if self._handshake is not None:
                async with asyncio.timeout(self._config.handshake_seconds):
                    await writer.start_tls(self._handshake.context())
            connection = Connection(reader, writer, is_encrypted=self._handshake is not None)
            self._connections[task] = connection
            try:
                await self._serve(connection)
            finally:
                await connection.close()
        except GONE:
            writer.transport.abort()
        except asyncio.CancelledError:
            # asyncio's streams would report the end of a server as an error.
            writer.transport.abort()
        finally:
            del self._connections[task]

    def _make_room(self) -> bool:
        """Ends the connection that has waited longest for a request; whether there is one.

        Else a few that are only kept open would keep everybody out.
        """
        idle = [one for one in self._connections.values() if one is not None and one.is_idle]
        # Those that end are there until the other side has heard of it.
        if not idle or len(self._connections) >= 2 * _MAX_CONNECTIONS:
            return False
        min(idle, key=lambda one: one.waits_since).finish()
        return True
