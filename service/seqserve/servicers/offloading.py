"""Work on texts that would hold up the event loop, in a thread."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from seqserve.call_record import current_call

_Result = TypeVar("_Result")

INLINE_CHARACTERS = 4096
"""Texts of so many in all take well under a millisecond to tokenize; a hop to a thread, more."""


async def off_loop(size: int, work: Callable[[], _Result], *, stage: str = "tokenize") -> _Result:
    """Does work on so many characters in a thread, unless they are few.

    Args:
        size: The characters.
        work: What to do.
        stage: What it is called among the stages of the call.
    """
    if not size:
        return work()
    started_at = time.monotonic()
    result = work() if size <= INLINE_CHARACTERS else await asyncio.to_thread(work)
    call = current_call()
    if call is not None:
        call.observe_stage(stage, started_at, time.monotonic())
    return result
