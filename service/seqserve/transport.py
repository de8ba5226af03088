"""How the server listens: addresses, and what gRPC allows a connection."""

import socket

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError

_MAX_PENDING_CALLS = 16_384
"""Calls that gRPC keeps for the event loop, without their messages; it drops what exceeds them."""
_MAX_METADATA_BYTES = 16_384
"""Of one call."""


def check_is_free(host: str, port: int, setting: str) -> None:
    """Checks that nobody listens, for a port that two servers of this process will share.

    Raises:
        ConfigurationError: The port is taken; the message names its setting.
    """
    try:
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe:
                # As gRPC binds: what is left of connections that have ended is in nobody's way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        raise _refusal(_join(host, port), setting) from error


def bind(
    server: grpc.aio.Server | grpc.Server,
    host: str,
    port: int,
    setting: str,
    credentials: grpc.ServerCredentials | None = None,
) -> int:
    """Has a server listen; returns the port, also where 0 was asked for.

    Raises:
        ConfigurationError: The port is taken; the message names its setting.
    """
    address = _join(host, port)
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise _refusal(address, setting) from error


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refusal(address: str, setting: str) -> ConfigurationError:
    return ConfigurationError(
        f"{setting}: {address} cannot be bound; another process may be using it"
    )


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
        ("grpc.keepalive_time_ms", _milliseconds(config.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", _milliseconds(config.keepalive_timeout_seconds)),
        ("grpc.keepalive_permit_without_calls", 1),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            _milliseconds(config.min_ping_seconds),
        ),
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


def inner_options(config: ServerConfig) -> list[tuple[str, int]]:
    """What of it holds for calls within the process, whose connection has no age and no pings."""
    limits = {
        "grpc.so_reuseport",
        "grpc.max_receive_message_length",
        "grpc.server.max_pending_requests",
        "grpc.server.max_pending_requests_hard_limit",
        "grpc.max_metadata_size",
        "grpc.absolute_max_metadata_size",
    }
    return [option for option in channel_options(config) if option[0] in limits]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
