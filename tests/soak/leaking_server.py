"""The server with a leak: what it keeps of each call must show in the slope of its memory.

It is run as ``seqserve`` is, with the same command line. Unlike ``bench.leaking_server`` it leaks
with calls of every kind.
"""

from collections.abc import Callable
from typing import Any

from seqserve.__main__ import main
from seqserve.servicers import interceptor

LEAKED_BYTES = 4096
"""Of each call."""
_kept: list[bytes] = []


def _leak(finish: Callable[..., None]) -> Callable[..., None]:
    """The end of a call that forgets nothing."""

    def finish_and_keep(*arguments: Any) -> None:
        _kept.append(b"x" * LEAKED_BYTES)
        finish(*arguments)

    return finish_and_keep


if __name__ == "__main__":
    setattr(interceptor._Call, "_finish", _leak(interceptor._Call._finish))  # noqa: B010
    main(prog_name="leaking_server")
