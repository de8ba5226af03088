"""Whether a request comes from this page, and not from another one in the same browser.

A page of a stranger can send requests to whatever the browser reaches, this machine included. It
can neither choose ``Origin`` nor send JSON without being asked about it first (there are no CORS
headers here, so that it is told no). Only a name of its own that it lets point to this server
(DNS rebinding) makes it one origin with us: so names must be known. Addresses cannot be rebound.
"""

import ipaddress
import urllib.parse
from collections.abc import Iterable

import grpc

from seqserve.playground.http_error import HttpError

_JSON = "application/json"
_OWN_SITE = ("same-origin", "none")
"""``Sec-Fetch-Site`` of the page itself, and of what a person typed."""


def check_host(values: list[str], names: Iterable[str]) -> None:
    """Refuses requests for a name that nobody gave to this server.

    Args:
        values: Of the header ``Host``.
        names: What else than ``localhost`` and addresses is one.

    Raises:
        HttpError: 421, with what to set.
    """
    host = values[0] if len(values) == 1 else ""
    name = _name_of(host)
    if name is None or not (name == "localhost" or name in names or _is_address(name)):
        raise HttpError(
            421,
            grpc.StatusCode.PERMISSION_DENIED,
            f"{host!r} is no name of this server: use localhost or an address, or add the name to "
            "playground_hosts",
        )


def check_origin(
    host: str, origins: list[str], sites: list[str], types: list[str], *, is_encrypted: bool
) -> None:
    """Refuses calls that another page makes.

    Args:
        host: The header ``Host``, which was checked.
        origins: Values of ``Origin``; programs that are no browsers send none.
        sites: Values of ``Sec-Fetch-Site``.
        types: Values of ``Content-Type``.
        is_encrypted: Whether the connection is; a proxy before it may encrypt even if it is not.

    Raises:
        HttpError: 403 or 415.
    """
    schemes = ("https",) if is_encrypted else ("http", "https")
    own = {f"{scheme}://{host}".lower() for scheme in schemes}
    if any(origin.lower() not in own for origin in origins) or any(
        site not in _OWN_SITE for site in sites
    ):
        raise HttpError(
            403,
            grpc.StatusCode.PERMISSION_DENIED,
            "calls of other pages are refused: only the playground's own may call",
        )
    kind = types[0].partition(";")[0].strip().lower() if len(types) == 1 else ""
    if kind != _JSON:
        raise HttpError(
            415,
            grpc.StatusCode.INVALID_ARGUMENT,
            f"the header Content-Type must be {_JSON}, once",
        )


def _name_of(host: str) -> str | None:
    """A host without its port, in lower case; None if it is none."""
    try:
        parts = urllib.parse.urlsplit(f"//{host}")
        _ = parts.port  # a number, if there is one
    except ValueError:
        return None
    if parts.netloc != host or "@" in host:
        return None
    return parts.hostname


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
