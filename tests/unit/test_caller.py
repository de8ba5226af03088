"""Who makes a call: a name that it gives, or its address."""

from __future__ import annotations

import contextvars
from typing import Any, cast

import grpc
import pytest

from seqserve.access import Access
from seqserve.bearer_token import BearerToken
from seqserve.errors import InvalidRequestError
from seqserve.servicers.caller import caller_of
from seqserve.servicers.grant import set_grant


class FakeContext:
    """A call from somewhere, with metadata."""

    def __init__(self, peer: str, *names: str | bytes) -> None:
        self._peer = peer
        self._names = names

    def peer(self) -> str:
        """As gRPC writes it."""
        return self._peer

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """The names, and a key that does not matter."""
        return (("user-agent", "x"), *(("seqserve-caller", name) for name in self._names))


def find(peer: str, *names: str | bytes) -> str:
    """The caller."""
    return caller_of(cast("grpc.aio.ServicerContext[Any, Any]", FakeContext(peer, *names)))


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("ipv4:10.0.0.1:4711", "address 10.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "address [::1]"),
        ("ipv6:[fe80::1]:4711", "address [fe80::1]"),
        ("unix:/run/seqserve.sock", "address unix"),
        ("unix:", "address unix"),
    ],
)
def test_address_without_port_is_the_caller(peer: str, caller: str) -> None:
    """Connections of one host are one caller's, and so are all Unix sockets."""
    assert find(peer) == caller


def test_name_wins_and_is_no_address() -> None:
    """A name counts wherever the call comes from; none can pass for an address."""
    assert find("ipv4:10.0.0.1:4711", "batch") == find("unix:", "batch") == "name batch"
    assert find("unix:", "10.0.0.1") != find("ipv4:10.0.0.1:1")


@pytest.mark.parametrize("name", ["", "x" * 65, "größe", b"bytes"])
def test_names_that_are_no_names_are_refused(name: str | bytes) -> None:
    """Nothing is cut or replaced."""
    rule = f"must have 1 to 64 ASCII characters, but has {len(name)}"
    with pytest.raises(InvalidRequestError, match=rule):
        find("unix:", name)


def test_name_of_the_token_is_the_caller() -> None:
    """Wherever it calls from; a name beside it would let it take several shares."""
    value = "0123456789abcdef"
    token = BearerToken.model_validate({"name": "search", "value": value})
    grant = Access(None, token).find(value)
    assert grant is not None
    context = contextvars.copy_context()
    context.run(set_grant, grant)
    assert context.run(find, "ipv4:10.0.0.1:4711") == "token search"
    with pytest.raises(InvalidRequestError, match="has no effect here, where the name of the"):
        context.run(find, "ipv4:10.0.0.1:4711", "batch")
    assert find("unix:", "search") == "name search"  # another call


def test_two_names_are_refused() -> None:
    """It is not for the server to choose."""
    with pytest.raises(InvalidRequestError, match="must be given once, not 2 times"):
        find("unix:", "a", "b")
