"""With whom a call shares its answers, where the server keeps or shares any.

The metadata key ``seqserve-cache`` says what a call does not want: ``no-cache`` to be answered with
what was computed for others, ``no-store`` neither that nor to have its own answers kept. Callers
with tokens share among those of the same token: how fast an answer comes tells whether somebody has
asked the same before. Without tokens nobody can be told from others, and all share.

Source: the directives of requests in RFC 9111, section 5.2.1.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

from typing import Any

import grpc

from seqserve.errors import InvalidRequestError
from seqserve.servicers.grant import token_name
from seqserve.sharing import Sharing

CACHE_KEY = "seqserve-cache"
_NO_CACHE, _NO_STORE = "no-cache", "no-store"


def sharing_of(context: grpc.aio.ServicerContext[Any, Any]) -> Sharing | None:
    """What a call allows; None for nothing.

    Raises:
        InvalidRequestError: It says something else, or says it twice.
    """
    token = token_name()
    group = "" if token is None else f"token {token}"
    values = [value for key, value in context.invocation_metadata() or () if key == CACHE_KEY]
    if not values:
        return Sharing(group)
    if len(values) > 1:
        raise InvalidRequestError(
            CACHE_KEY, f"the metadata key `{CACHE_KEY}` must be given once, not {len(values)} times"
        )
    if values[0] not in (_NO_CACHE, _NO_STORE):
        raise InvalidRequestError(
            CACHE_KEY,
            f"the metadata key `{CACHE_KEY}` must be `{_NO_CACHE}` or `{_NO_STORE}`; leave it out "
            "for answers that others may share",
        )
    return Sharing(group, takes=False) if values[0] == _NO_CACHE else None
