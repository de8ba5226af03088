"""What the token of the running call allows. Nothing is known, and all allowed, without tokens."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import grpc

from seqserve.access import Grant
from seqserve.bearer_token import Scope
from seqserve.errors import OverloadedError, PermissionDeniedError
from seqserve.sequence import Priority

_current: contextvars.ContextVar[Grant | None] = contextvars.ContextVar("grant", default=None)


def set_grant(grant: Grant) -> None:
    """Remembers the token of the call that is beginning."""
    _current.set(grant)


def token_name() -> str | None:
    """Who holds the token of the running call; None without tokens."""
    grant = _current.get()
    return None if grant is None else grant.token.name


def check_scopes(grant: Grant, wanted: frozenset[Scope]) -> None:
    """Refuses calls that a token is not for.

    Raises:
        PermissionDeniedError: It has none of the scopes.
    """
    if not grant.token.scopes & wanted:
        held = ", ".join(sorted(grant.token.scopes))
        needed = " or ".join(sorted(wanted))
        raise PermissionDeniedError(
            f"this call needs a token with the scope {needed}, but yours has: {held}"
        )


def check_rate(grant: Grant) -> None:
    """Counts a request of a token.

    Raises:
        OverloadedError: It has had its share; says when there is more.
    """
    if seconds := grant.take():
        raise OverloadedError(
            f"your token is good for {grant.token.requests_per_second:g} requests per second; "
            f"try again in {seconds:.2g} seconds",
            retry_after_seconds=seconds,
        )


def check_priority(priority: Priority) -> Priority:
    """Refuses priorities that are not for the token of the running call.

    Raises:
        PermissionDeniedError: It is above the token's highest.
    """
    grant = _current.get()
    if grant is not None and priority > grant.token.highest_priority:
        raise PermissionDeniedError(
            f"`priority` may be at most {grant.token.max_priority} with your token, but is "
            f"{priority.name.lower()}"
        )
    return priority


async def wait_for_rate() -> None:
    """Waits until the token of the running call may make another request, and counts it.

    For the messages of a stream, whose caller is slowed down rather than refused.
    """
    grant = _current.get()
    while grant is not None and (seconds := grant.take()):
        await asyncio.sleep(seconds)


async def read_in_turn(context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    """The next request of a stream, when the caller's token has a turn for it."""
    message = await context.read()
    if message is not grpc.aio.EOF:
        await wait_for_rate()
    return message
