"""How both clients connect: retries, balancing, keepalive, TLS, token."""

import dataclasses
import json
import warnings

import grpc

from seqserve.loopback import is_loopback

_SCHEMES = ("dns", "ipv4", "ipv6", "passthrough")
_LOCAL_SCHEMES = ("unix", "unix-abstract")
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_MIN_SECONDS, _MAX_SECONDS = 0.1, 86_400
"""Of keepalive; gRPC counts milliseconds in 32 bits."""

_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    # RESOURCE_EXHAUSTED comes with a push-back, which gRPC obeys instead of the back-off.
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
}
_SERVICES = ("GenerationService", "EncodingService", "AttentionService", "ModelService")


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
    keepalive_seconds: float = 60.0
    """After so long without a word of the server it is asked whether it is there. Servers send
    away who asks more often than every 30 seconds, unless they are told otherwise
    (``min_ping_seconds``)."""
    keepalive_timeout_seconds: float = 20.0
    """Time to answer that; else calls under way are UNAVAILABLE."""
    retries: bool = True
    """Whether calls that were refused or did not arrive are tried again; they are idempotent."""
    watches_health: bool = True
    """Whether servers that say that they shut down get no further calls. Not behind a proxy that
    balances calls: there the end of one server would be taken for that of all."""

    def __post_init__(self) -> None:
        """Refuses what would be ignored or told to everybody.

        Raises:
            ValueError: Certificates without TLS, half of a client's own, a token in clear, a name
                of a caller that servers refuse, or a keepalive out of range.
        """
        is_printable = self.caller.isascii() and self.caller.isprintable()
        if not is_printable or len(self.caller) > 64:
            raise ValueError("`caller` must have at most 64 printable ASCII characters")
        for name in ("keepalive_seconds", "keepalive_timeout_seconds"):
            if not _MIN_SECONDS <= getattr(self, name) <= _MAX_SECONDS:
                raise ValueError(
                    f"`{name}` must be at least {_MIN_SECONDS} and at most {_MAX_SECONDS}, but is "
                    f"{getattr(self, name)}"
                )
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
            # A server that shuts down says so, and gets no further calls.
            "healthCheckConfig": {"serviceName": ""},
            # Stop retrying when most calls fail: retries must not keep a server down.
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
        }
        return [
            ("grpc.service_config", json.dumps(service_config)),
            # Without a policy only what no server has seen is sent again, when a connection ends.
            ("grpc.enable_retries", 1),
            ("grpc.inhibit_health_checking", int(not self.watches_health)),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            # gRPC keeps 256 KiB of a call to send again, and retries nothing that is larger.
            ("grpc.per_rpc_retry_buffer_size", _MAX_MESSAGE_BYTES),
            # What is for this machine goes to no proxy that the environment names.
            ("grpc.enable_http_proxy", int(not is_local(self.target))),
            ("grpc.keepalive_time_ms", round(self.keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout_seconds * 1000)),
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
