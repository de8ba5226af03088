"""When a call ends, answered or not: as its caller says, or as the server does."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import DeadlineError
from seqserve.time_limit import overdue_message


class Deadline(NamedTuple):
    """The end of a call, and who set it."""

    at: float
    """Seconds on the monotonic clock."""
    server_limit_seconds: float | None
    """What the server gives to a call; None where the caller set an earlier end."""


def deadline_of(context: grpc.aio.ServicerContext[Any, Any], config: ServerConfig) -> Deadline:
    """When the caller stops waiting or the server's patience ends, whichever is first."""
    remaining, limit = context.time_remaining(), config.max_request_seconds
    if remaining is None or remaining > limit:
        return Deadline(time.monotonic() + limit, limit)
    return Deadline(time.monotonic() + remaining, None)


@contextlib.asynccontextmanager
async def until(deadline: Deadline) -> AsyncIterator[None]:
    """Ends the block when the deadline passes.

    Raises:
        DeadlineError: It has.
    """
    try:
        async with asyncio.timeout_at(deadline.at):
            yield
    except TimeoutError as error:
        raise DeadlineError(overdue_message(deadline.server_limit_seconds)) from error
