"""TLS of the HTTP port: the certificate of the gRPC port, and who signs those of callers there.

Files that changed count for the next connection, as on the gRPC port. While the pair does not fit,
as when one of two files has been replaced, the former stays in use; ``Certificate`` says so in the
log.
"""

import contextlib
import ssl
from pathlib import Path

from seqserve.config import ServerConfig


class Handshake:
    """Contexts for connections, made anew when a file has changed. Event loop only."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        """Reads the files.

        Raises:
            ssl.SSLError: They do not fit; ``Certificate`` has tried them before.
        """
        self._paths = (certificate, key, client_ca)
        self._files = self._load()
        self._context = self._make()

    def context(self) -> ssl.SSLContext:
        """For one connection."""
        # Gone, or no pair for now: the next connection tries again.
        with contextlib.suppress(OSError, ssl.SSLError):
            files = self._load()
            if files != self._files:
                self._context = self._make()
                self._files = files
        return self._context

    def _load(self) -> tuple[bytes, ...]:
        return tuple(path.read_bytes() for path in self._paths if path is not None)

    def _make(self) -> ssl.SSLContext:
        certificate, key, client_ca = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # Nobody is here to be asked for a password; what is encrypted was refused before.
        context.load_cert_chain(certificate, key, password="")
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        return context


def open_handshake(config: ServerConfig) -> Handshake | None:
    """What the settings ask for; None for connections in the clear."""
    if config.tls_certificate is None or config.tls_key is None:
        return None
    return Handshake(config.tls_certificate, config.tls_key, config.tls_client_ca)
