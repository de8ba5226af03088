"""How both clients connect: retries, balancing, keepalive, TLS, token."""

import dataclasses
import json

import grpc

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
    """Sent as ``authorization: Bearer``."""
    tls: bool = False
    root_certificates: bytes | None = None
    """PEM; None means the system's. Implies TLS."""
    certificate: bytes | None = None
    """PEM chain of this client, for mutual TLS, with ``private_key``."""
    private_key: bytes | None = None
    retries: bool = True
    """Whether calls that were refused or did not arrive are tried again; they are idempotent."""

    @property
    def is_secure(self) -> bool:
        """Whether to use TLS."""
        return self.tls or self.root_certificates is not None

    def credentials(self) -> grpc.ChannelCredentials:
        """What TLS needs."""
        return grpc.ssl_channel_credentials(
            self.root_certificates, self.private_key, self.certificate
        )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Sent with each call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

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
