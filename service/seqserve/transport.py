"""How the server listens: addresses, and what gRPC allows a connection."""

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError

_MAX_PENDING_CALLS = 16_384
"""Calls that gRPC keeps for the event loop, without their messages; it drops what exceeds them."""
_MAX_METADATA_BYTES = 16_384
"""Of one call."""


def bind(
    server: grpc.aio.Server,
    host: str,
    port: int,
    setting: str,
    credentials: grpc.ServerCredentials | None = None,
) -> int:
    """Has a server listen; returns the port, also where 0 was asked for.

    Raises:
        ConfigurationError: The port is taken; the message names its setting.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigurationError(
            f"{setting}: {address} cannot be bound; another process may be using it"
        ) from error


def channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    """Limits that keep one caller from hurting others."""
    return [
        # Two servers on one port would share its connections at random.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", config.max_message_bytes),
        # Admission refuses, with details, a time to retry and a metric. gRPC's own limit of calls
        # that wait for the event loop would refuse without any.
        ("grpc.server.max_pending_requests", _MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING_CALLS),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
        ("grpc.max_connection_idle_ms", 900_000),
        ("grpc.max_connection_age_ms", _milliseconds(config.max_connection_age_seconds)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(config.max_request_seconds) + 5000),
        ("grpc.server_handshake_timeout_ms", _milliseconds(config.handshake_seconds)),
        # For connections that mean harm. A client that reaches it is refused, too, without details
        # (of 3000 calls at once with a limit of 1024, 1800 were): so it lies above max_outstanding.
        ("grpc.max_concurrent_streams", config.max_connection_streams),
        # gRPC refuses at random between the two, and says nothing of it.
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
    ]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
