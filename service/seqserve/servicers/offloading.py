"""Work on texts that would hold up the event loop, in a thread."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")

INLINE_CHARACTERS = 4096
"""Texts of so many in all take well under a millisecond to tokenize; a hop to a thread, more."""


async def off_loop(size: int, work: Callable[[], _Result]) -> _Result:
    """Does work on so many characters in a thread, unless they are few."""
    return work() if size <= INLINE_CHARACTERS else await asyncio.to_thread(work)
