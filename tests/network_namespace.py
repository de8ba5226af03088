"""Two hosts of our own and a wire between them, as network namespaces; needs root and ``ip``."""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import subprocess
import threading
from types import TracebackType
from typing import Self

_CLONE_NEWNET = 0x40000000
_NOBODY = "02:00:00:00:00:01"
"""An address of the wire that neither host has."""


class Host:
    """A namespace with one address, of a block that is for documentation alone (RFC 5737)."""

    def __init__(self, name: str, address: str, device: str) -> None:
        self.name, self.address, self.device = name, address, device

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command that is to run there."""
        return ("ip", "netns", "exec", self.name)

    def connect(self, port: int) -> socket.socket:
        """A connection to a server of this host, made there."""
        made: list[socket.socket] = []

        def connect() -> None:
            with open(f"/run/netns/{self.name}", "rb") as namespace:
                result = ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET)
            if result:
                raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_connection((self.address, port), timeout=10))

        # A thread of its own, since its namespace stays changed.
        thread = threading.Thread(target=connect)
        thread.start()
        thread.join()
        (connection,) = made
        return connection

    def configure(self, *arguments: str) -> None:
        """Runs ``ip`` there."""
        _ip("-n", self.name, *arguments)


class Wire:
    """The hosts ``server`` and ``client``, which reach each other until they are parted."""

    def __init__(self) -> None:
        unique = secrets.token_hex(3)
        self.server = Host(f"seqserve-{unique}-server", "192.0.2.1", f"sq{unique}s")
        self.client = Host(f"seqserve-{unique}-client", "192.0.2.2", f"sq{unique}c")
        self._hosts = (self.server, self.client)

    def __enter__(self) -> Self:
        try:
            for host in self._hosts:
                _ip("netns", "add", host.name)
            ends = ("link", "add", self.server.device, "netns", self.server.name, "type", "veth")
            _ip(*ends, "peer", "name", self.client.device, "netns", self.client.name)
            for host in self._hosts:
                host.configure("address", "add", f"{host.address}/30", "dev", host.device)
                host.configure("link", "set", "lo", "up")
                host.configure("link", "set", host.device, "up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def lose_packets(self) -> None:
        """Has each host send to nobody what is for the other: no error, and no answer."""
        for host, other in (self._hosts, self._hosts[::-1]):
            host.configure(
                *("neighbour", "replace", other.address, "lladdr", _NOBODY),
                *("dev", host.device, "nud", "permanent"),
            )

    def find_packets(self) -> None:
        """Has the hosts ask again for each other's address of the wire."""
        for host, other in (self._hosts, self._hosts[::-1]):
            host.configure("neighbour", "del", other.address, "dev", host.device)

    def pull(self) -> None:
        """Takes the client's end down."""
        self.client.configure("link", "set", self.client.device, "down")

    def plug(self) -> None:
        """Takes it up again."""
        self.client.configure("link", "set", self.client.device, "up")

    def _remove(self) -> None:
        for host in self._hosts:
            if os.path.exists(f"/run/netns/{host.name}"):
                _ip("netns", "del", host.name)  # and its end of the wire, with the other one


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
