"""A balancer of connections, as the service of a cluster is: it knows nothing of calls."""

from __future__ import annotations

import asyncio
import itertools
from types import TracebackType


class Balancer:
    """Hands new connections to backends in turn, and passes bytes on."""

    def __init__(self, *backends: int) -> None:
        self.backends = list(backends)
        """Their ports."""
        self._turns = itertools.count()
        self._pipes: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Balancer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self.backends[next(self._turns) % len(self.backends)]
        try:
            behind, before = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            writer.close()
            return
        for source, target in ((reader, before), (behind, writer)):
            pipe = asyncio.create_task(_pass_on(source, target))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Copies bytes until either side is closed."""
    try:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    except ConnectionError:
        pass  # the end of one side is the end of both
    finally:
        target.close()
