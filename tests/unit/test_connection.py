"""How clients connect: what is refused because it would be ignored, or told to everybody."""

from typing import Any

import pytest

from seqserve.client import AsyncClient, Client
from seqserve.client.channel import Connection, is_local

LOCAL = [
    "localhost:50051",
    "localhost",
    "127.0.0.1:50051",
    "127.8.9.10:1",
    "[::1]:50051",
    "::1",
    "unix:/run/seqserve.sock",
    "unix:relative.sock",
    "unix-abstract:name",
    "dns:///localhost:50051",
    "dns:localhost",
    "ipv4:127.0.0.1:1,127.0.0.2:1",
    "ipv6:[::1]:1",
]
REMOTE = [
    "server:50051",
    "server",
    "10.0.0.1:50051",
    "0.0.0.0:50051",
    "[2001:db8::1]:50051",
    "dns:///seqserve.example:50051",
    "dns://127.0.0.1/server:50051",
    "ipv4:127.0.0.1:1,10.0.0.1:1",
    "ipv6:[2001:db8::1]:1",
    "xds:///localhost",
    "localhost.example:1",
    "127.0.0.1.example:1",
    "unix.example:1",
    "",
]


@pytest.mark.parametrize("target", LOCAL)
def test_loopback_and_unix_sockets_are_local(target: str) -> None:
    """A token may go there in clear."""
    assert is_local(target)
    assert Connection(target=target, token="secret").metadata()


@pytest.mark.parametrize("target", REMOTE)
def test_token_in_clear_to_another_machine_is_refused(target: str) -> None:
    """With TLS it may go anywhere, and without a token nothing is refused."""
    assert not is_local(target)
    with pytest.raises(ValueError, match="in clear; set `tls`, or leave `token` out") as caught:
        Connection(target=target, token="secret")
    assert "secret" not in str(caught.value)
    assert Connection(target=target, token="secret", tls=True).metadata()
    assert not Connection(target=target).metadata()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_token_in_clear_is_allowed_with_a_warning(kind: Any) -> None:
    """Where something else encrypts it; the warning names target and line, and no token."""
    with pytest.warns(
        UserWarning, match="the token is sent to server:1 in clear; unless"
    ) as caught:
        kind("server:1", token="secret", allows_token_in_clear=True)
    (warning,) = caught
    assert warning.filename == __file__
    assert "secret" not in str(warning.message)


@pytest.mark.parametrize("name", ["root_certificates", "certificate", "private_key"])
def test_certificates_without_tls_are_refused(name: str) -> None:
    """They would be ignored; the message names the setting."""
    settings: dict[str, Any] = {name: b"pem"}
    with pytest.raises(ValueError, match=f"`{name}` has an effect with TLS only; set `tls`"):
        Connection(**settings)


@pytest.mark.parametrize("name", ["certificate", "private_key"])
def test_half_of_a_clients_certificate_is_refused(name: str) -> None:
    """One is of no use without the other."""
    settings: dict[str, Any] = {name: b"pem"}
    with pytest.raises(ValueError, match="`certificate` and `private_key` must be set together"):
        Connection(tls=True, **settings)
    assert Connection(tls=True, certificate=b"pem", private_key=b"pem").credentials()


@pytest.mark.parametrize("name", ["keepalive_seconds", "keepalive_timeout_seconds"])
@pytest.mark.parametrize("value", [0, 86_401, float("nan")])
def test_keepalive_out_of_range_is_refused(name: str, value: float) -> None:
    """The message names the setting and its range; gRPC would take something else."""
    settings: dict[str, Any] = {name: value}
    message = f"`{name}` must be at least 0.1 and at most 86400, but is {value}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        Connection(**settings)


def test_keepalive_is_told_to_grpc() -> None:
    """In milliseconds."""
    options = dict(Connection(keepalive_seconds=0.5, keepalive_timeout_seconds=86400).options())
    assert options["grpc.keepalive_time_ms"] == 500
    assert options["grpc.keepalive_timeout_ms"] == 86_400_000


async def test_both_clients_refuse_when_made() -> None:
    """Not with the first call."""
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="in clear"):
            kind("server:1", token="secret")
        with pytest.raises(ValueError, match="with TLS only"):
            kind("localhost:1", root_certificates=b"pem")


@pytest.mark.parametrize(("target", "allowed"), [("localhost:1", 0), ("server:1", 1)])
def test_large_calls_are_sent_again_and_local_ones_to_no_proxy(target: str, allowed: int) -> None:
    """GRPC would retry nothing above 256 KiB, and send a token through the environment's proxy."""
    options = dict(Connection(target=target).options())
    assert options["grpc.enable_http_proxy"] == allowed
    assert options["grpc.per_rpc_retry_buffer_size"] == options["grpc.max_receive_message_length"]


def test_health_is_watched_unless_a_proxy_balances() -> None:
    """Behind one the end of one server would be taken for that of all."""
    assert dict(Connection().options())["grpc.inhibit_health_checking"] == 0
    options = dict(Connection(watches_health=False).options())
    assert options["grpc.inhibit_health_checking"] == 1
