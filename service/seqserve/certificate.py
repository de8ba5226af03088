"""The server's certificate, as it stands in its files: whoever renews them need not restart it.

gRPC asks before each handshake. Files that changed are tried first, in a handshake of the process
with itself; a pair that does not fit, as while one of two files has been replaced, leaves the
former in use. Connections that are open go on with what they began with.
"""

import contextlib
import math
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import grpc
import structlog

from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError

_log = structlog.get_logger(__name__)
_NUM_FLIGHTS = 4
"""Of messages in a handshake, more than TLS 1.3 has."""
_CERTIFICATE_MARK = b"-----BEGIN CERTIFICATE-----"
_KEY_MARK = b"PRIVATE KEY-----"


class _Verdict(NamedTuple):
    """What a client that trusts the certificate finds."""

    complaint: str
    """Why it refuses the certificate; empty if it does not."""
    expires_at: float
    """Seconds since the epoch; infinite if unknown."""


class Certificate:
    """A certificate with its key, and with who signs those of callers, if they must have one."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        client_ca: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Reads and tries the files.

        Args:
            certificate: The chain.
            key: Of the first certificate in the chain.
            client_ca: Who signs those of callers; None if they need none.
            clock: Seconds since the epoch, for when the certificate ends.

        Raises:
            ConfigurationError: A file is missing or no PEM, or key and certificate do not fit.
        """
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._clock = clock
        self._reason = ""
        self._files = self._load()
        self._verdict = self._try(self._files)
        self._current = self._to_configuration(self._files)

    def report(self) -> None:
        """Logs what clients will be shown, and whether they will refuse it."""
        if self._verdict.complaint:
            _log.warning(
                "clients will refuse the certificate; renew it",
                tls_certificate=str(self._certificate),
                reason=self._verdict.complaint,
            )

    def credentials(self) -> grpc.ServerCredentials:
        """For a secure port; they follow the files."""
        return grpc.dynamic_ssl_server_credentials(
            self._current,
            self.renew,  # type: ignore[arg-type]  # None is for no change
            require_client_authentication=self._client_ca is not None,
        )

    def renew(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration if the files have changed. gRPC's threads, one at a time."""
        try:
            files = self._load()
            if files == self._files:
                self._reason = ""
                self._watch_expiry()
                return None
            verdict = self._try(files)
        except ConfigurationError as error:
            if str(error) != self._reason:  # once, though each connection tries again
                _log.error("certificate not renewed; the former stays in use", reason=str(error))
            self._reason = str(error)
            return None
        self._files, self._verdict, self._reason = files, verdict, ""
        self._current = self._to_configuration(files)
        _log.info("certificate renewed", tls_certificate=str(self._certificate))
        self.report()
        return self._current

    def _watch_expiry(self) -> None:
        """Logs, once, that the certificate in use has come to its end."""
        if self._clock() > self._verdict.expires_at:
            self._verdict = _Verdict("certificate has expired", math.inf)
            self.report()

    def _load(self) -> tuple[bytes, ...]:
        """Certificate, key, and who signs those of callers."""
        files = [
            _read(self._certificate, "tls_certificate", _CERTIFICATE_MARK),
            _read(self._key, "tls_key", _KEY_MARK),
        ]
        if self._client_ca is not None:
            files.append(_read(self._client_ca, "tls_client_ca", _CERTIFICATE_MARK))
        return tuple(files)

    def _try(self, files: tuple[bytes, ...]) -> _Verdict:
        """What clients will find."""
        try:
            verdict = _shake_hands(self._certificate, self._key)
            if self._client_ca is not None:
                _check_authority(self._client_ca)
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"tls_key {self._key} does not fit tls_certificate {self._certificate} "
                f"({_reason(error)}); both must come from one request for a certificate"
            ) from error
        except OSError as error:  # gone since it was read
            raise ConfigurationError(f"the files of TLS cannot be read: {error}") from error
        except ValueError as error:
            raise ConfigurationError(f"tls_key {self._key} {error}") from error
        # NOTE: OpenSSL reads files only. What it tried is what was read if they are still the same.
        if self._load() != files:
            raise ConfigurationError(f"{self._certificate} or {self._key} changed while being read")
        return verdict

    def _to_configuration(self, files: tuple[bytes, ...]) -> grpc.ServerCertificateConfiguration:
        certificate, key, *authority = files
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], authority[0] if authority else None
        )


def open_certificate(config: ServerConfig) -> Certificate | None:
    """The certificate that the settings name; None for none.

    Raises:
        ConfigurationError: A file is missing or no PEM, or key and certificate do not fit.
    """
    if config.tls_certificate is None or config.tls_key is None:
        return None
    return Certificate(config.tls_certificate, config.tls_key, config.tls_client_ca)


def _read(path: Path, setting: str, mark: bytes) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{setting} {path} cannot be read: {error.strerror}") from error
    if mark not in data:
        what = "private key" if mark == _KEY_MARK else "certificate"
        raise ConfigurationError(f"{setting} {path} holds no {what} in PEM form")
    return data


def _shake_hands(certificate: Path, key: Path) -> _Verdict:
    """Lets OpenSSL talk to itself, with this certificate as the only one it trusts.

    Raises:
        ssl.SSLError: Key and certificate do not fit.
        ValueError: The key is encrypted.
    """
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, key, _refuse_password)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client_context.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(_NUM_FLIGHTS):
            for side in (client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return _Verdict(error.verify_message, math.inf)
    facts = client.getpeercert()
    assert facts is not None
    return _Verdict("", ssl.cert_time_to_seconds(str(facts["notAfter"])))


def _check_authority(path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"tls_client_ca {path} holds a certificate that cannot be read ({_reason(error)})"
        ) from error


def _refuse_password() -> str:
    raise ValueError("is encrypted, and nobody is here to be asked for its password; decrypt it")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "no PEM").lower().replace("_", " ")
