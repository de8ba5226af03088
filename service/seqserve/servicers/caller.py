"""Who makes a call, to share a model fairly between callers.

Where callers have tokens, it is the name of the token. Else a caller may name itself in the
metadata key ``seqserve-caller``, or is the address it calls from. NOTE: the key is a hint that
nobody checks.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import urllib.parse
from typing import Any

import grpc

from seqserve.errors import InvalidRequestError
from seqserve.servicers.grant import token_name

CALLER_KEY = "seqserve-caller"
_MAX_LENGTH = 64


def caller_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Who calls; tokens, names and addresses cannot be taken for each other.

    Raises:
        InvalidRequestError: The name is empty, too long, given twice, or given beside a token.
    """
    values = [value for key, value in context.invocation_metadata() or () if key == CALLER_KEY]
    token = token_name()
    if token is not None:
        if values:
            raise InvalidRequestError(
                CALLER_KEY,
                f"the metadata key `{CALLER_KEY}` has no effect here, where the name of the token "
                "is the caller; leave it out",
            )
        return f"token {token}"
    if not values:
        return f"address {_host(context.peer())}"
    if len(values) > 1:
        raise InvalidRequestError(
            CALLER_KEY,
            f"the metadata key `{CALLER_KEY}` must be given once, not {len(values)} times",
        )
    name = values[0]
    if not isinstance(name, str) or not name.isascii() or not 1 <= len(name) <= _MAX_LENGTH:
        raise InvalidRequestError(
            CALLER_KEY,
            f"the metadata key `{CALLER_KEY}` must have 1 to {_MAX_LENGTH} ASCII characters, but "
            f"has {len(name)}",
        )
    return f"name {name}"


def _host(peer: str) -> str:
    """The address without its port; all Unix sockets are one.

    Source: the peer strings of gRPC, ``ipv4:1.2.3.4:5``, ``ipv6:%5B::1%5D:5`` and ``unix:path``.
    """
    scheme, _, address = urllib.parse.unquote(peer).partition(":")
    return address.rpartition(":")[0] if scheme in ("ipv4", "ipv6") else scheme
