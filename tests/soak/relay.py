"""A way to the server that can be cut: bytes go through a port of our own."""

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Any, Self

_CHUNK_BYTES = 65536
_RESET = struct.pack("ii", 1, 0)
"""Of SO_LINGER: on, for no time. What is closed then is reset."""


class Relay:
    """Passes on what comes in on a port, both ways."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._connections)

    @property
    def target(self) -> str:
        """Its address."""
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def cut(self) -> None:
        """Resets all connections, on both sides."""
        for writer in self._writers:
            connection: Any = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        self._writers.clear()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward_reader, onward = await asyncio.open_connection(self._host, self._port)
        except OSError:  # there is no server any more
            writer.close()
            return
        self._writers |= {writer, onward}
        await asyncio.gather(_pass_on(reader, onward), _pass_on(onward_reader, writer))
        self._writers -= {writer, onward}


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
