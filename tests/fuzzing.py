"""How long chance draws requests: briefly among other tests, for as long as is wanted by itself."""

import os
import time
from collections.abc import Callable

VARIABLE = "FUZZ_SECONDS"
"""Of the environment; `make fuzz` sets it."""


def fuzz(check: Callable[[], None], seconds: float | None = None) -> int:
    """Checks a property of hypothesis once, or again with other examples until time is over.

    Args:
        check: Draws its examples and checks them all.
        seconds: For how long; what the environment says, by default.

    Returns:
        How often it was checked.
    """
    if seconds is None:
        seconds = float(os.environ.get(VARIABLE, "0"))
    over_at = time.monotonic() + seconds
    num_checks = 0
    while not num_checks or time.monotonic() < over_at:
        check()
        num_checks += 1
    if seconds:
        print(f"{num_checks} rounds of examples in {seconds:g} seconds, none of which failed")
    return num_checks
