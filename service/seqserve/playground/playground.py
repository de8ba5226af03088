"""The playground as a whole: made, started and stopped with the server."""

from collections.abc import Sequence as Items

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError
from seqserve.playground.gateway import Gateway
from seqserve.playground.handshake import open_handshake
from seqserve.playground.inner_server import InnerServer
from seqserve.playground.listener import Listener
from seqserve.playground.page import read_page
from seqserve.playground.site import Site


class Playground:
    """A page, and who answers its calls."""

    def __init__(
        self,
        config: ServerConfig,
        interceptors: Items[grpc.aio.ServerInterceptor],
        *,
        has_tokens: bool,
    ) -> None:
        """Reads the page and the certificate.

        Args:
            config: The settings.
            interceptors: Of the server.
            has_tokens: Whether callers need tokens.
        """
        self._inner = InnerServer(interceptors, config)
        gateway = Gateway(self._inner, has_tokens=has_tokens)
        self._site = Site(read_page(), gateway, config)
        self._listener = Listener(config, open_handshake(config), self._site.serve)
        self.inner_port = 0
        """Where calls go, once it has started."""

    @property
    def server(self) -> grpc.aio.Server:
        """Answers the calls; services are added to it before the start."""
        return self._inner.server

    async def start(self) -> int:
        """Listens; returns the port of HTTP.

        Raises:
            ConfigurationError: The port is taken.
        """
        self.inner_port = await self._inner.start()
        try:
            return await self._listener.start()
        except ConfigurationError:
            self._site.close()
            await self._inner.stop()
            raise

    async def stop(self, seconds: float) -> None:
        """Answers the requests that have come, and closes everything.

        Args:
            seconds: For all answers to be written and read.
        """
        await self._listener.stop(seconds)
        self._site.close()
        await self._inner.stop()
