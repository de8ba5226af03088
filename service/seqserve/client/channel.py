"""How both clients connect: retries, balancing, keepalive, TLS, token."""

import dataclasses
import json
import warnings

import grpc

from seqserve.loopback import is_loopback

_SCHEMES = ("dns", "ipv4", "ipv6", "passthrough")
_LOCAL_SCHEMES = ("unix", "unix-abstract")
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024

_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    # RESOURCE_EXHAUSTED comes with a push-back, which gRPC obeys instead of the back-off.
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
}
_SERVICES = ("GenerationService", "EncodingService", "ModelService")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where and how to connect."""

    target: str = "localhost:50051"
    """``host:port``, or ``dns:///name:port`` to spread calls over all addresses of a name."""
    token: str | None = None
    """Sent as ``authorization: Bearer``; in clear to another machine only if that is allowed."""
    allows_token_in_clear: bool = False
    """Whether the token may go to another machine without ``tls``, as where a mesh encrypts."""
    tls: bool = False
    root_certificates: bytes | None = None
    """PEM, for TLS; None means the system's."""
    certificate: bytes | None = None
    """PEM chain of this client, for mutual TLS, with ``private_key``."""
    private_key: bytes | None = None
    caller: str = ""
    """Who shares the server with others, for fairness: ASCII, at most 64 characters. Empty: all
    calls from one address are one caller's. Servers with tokens refuse it: there the token's name
    is the caller."""
    retries: bool = True
    """Whether calls that were refused or did not arrive are tried again; they are idempotent."""

    def __post_init__(self) -> None:
        """Refuses what would be ignored or told to everybody.

        Raises:
            ValueError: Certificates without TLS, half of a client's own, a token in clear, or a
                name of a caller that servers refuse.
        """
        if not self.caller.isascii() or len(self.caller) > 64:
            raise ValueError("`caller` must have at most 64 ASCII characters")
        if not self.tls:
            for name in ("root_certificates", "certificate", "private_key"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"`{name}` has an effect with TLS only; set `tls`, or leave it out"
                    )
            if self.token is not None and not is_local(self.target):
                if not self.allows_token_in_clear:
                    raise ValueError(
                        f"the token would be sent to {self.target} in clear; set `tls`, or leave "
                        "`token` out; where a mesh or a tunnel encrypts, set "
                        "`allows_token_in_clear`"
                    )
                warnings.warn(
                    f"the token is sent to {self.target} in clear; unless something else encrypts "
                    "it, whoever is on the way can use it",
                    stacklevel=4,
                )
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("`certificate` and `private_key` must be set together")

    def credentials(self) -> grpc.ChannelCredentials:
        """What TLS needs."""
        return grpc.ssl_channel_credentials(
            self.root_certificates, self.private_key, self.certificate
        )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Sent with each call."""
        pairs = [] if self.token is None else [("authorization", f"Bearer {self.token}")]
        if self.caller:
            pairs.append(("seqserve-caller", self.caller))
        return tuple(pairs)

    def options(self) -> list[tuple[str, str | int]]:
        """Channel options."""
        method: dict[str, object] = {
            "name": [{"service": f"seqserve.v1.{service}"} for service in _SERVICES]
        }
        if self.retries:
            method["retryPolicy"] = _RETRY_POLICY
        service_config = {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [method],
            # Stop retrying when most calls fail: retries must not keep a server down.
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
        }
        return [
            ("grpc.service_config", json.dumps(service_config)),
            ("grpc.enable_retries", int(self.retries)),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            # Servers end connections that ping more often than every 30 seconds.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ]


def is_local(target: str) -> bool:
    """Whether a target is certain to be on this machine: a loopback address or a Unix socket.

    Source: the target syntax of gRPC, ``scheme:[//authority/]address[,address...]``.
    """
    scheme, colon, rest = target.partition(":")
    if colon and scheme in _LOCAL_SCHEMES:
        return True
    addresses = target
    if colon and scheme in _SCHEMES:
        addresses = rest.rpartition("/")[2] if rest.startswith("//") else rest
    return all(map(_leads_here, addresses.split(",")))


def _leads_here(address: str) -> bool:
    host = address
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        host = address.partition(":")[0]
    return is_loopback(host)
