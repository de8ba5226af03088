"""What a request says of its turn: how urgent it is, and how long it may take."""

# The types of enum values exist only in type stubs.
from __future__ import annotations

import time
from typing import Any

from seqserve.errors import InvalidRequestError
from seqserve.inference_protocol.parameter import Value, read_integer
from seqserve.v1 import priority_pb2

_PRIORITIES = {
    0: priority_pb2.PRIORITY_UNSPECIFIED,
    1: priority_pb2.PRIORITY_HIGH,
    2: priority_pb2.PRIORITY_NORMAL,
    3: priority_pb2.PRIORITY_LOW,
}
"""By the numbers of the protocol, of which 1 is the most urgent."""
_SEQUENCE_PARAMETERS = ("sequence_id", "sequence_start", "sequence_end")


def take_priority(parameters: dict[str, Value]) -> priority_pb2.Priority.ValueType:
    """Removes the priority from parameters; returns that of ``seqserve.v1``.

    Raises:
        InvalidRequestError: There is no such.
    """
    priority = read_integer(parameters, "priority")
    parameters.pop("priority", None)
    if priority not in _PRIORITIES:
        raise InvalidRequestError(
            "priority",
            "`priority` must be 1 (high), 2 (normal), 3 (low) or 0 (the default, normal), but is "
            f"{priority}",
        )
    return _PRIORITIES[priority]


def take_timeout(parameters: dict[str, Value]) -> float | None:
    """Removes the time-out from parameters; returns it in seconds, None for no such.

    Raises:
        InvalidRequestError: It is below 0.
    """
    microseconds = read_integer(parameters, "timeout")
    parameters.pop("timeout", None)
    if microseconds < 0:
        raise InvalidRequestError(
            "timeout",
            f"`timeout` must be a number of microseconds, or 0 for none, but is {microseconds}",
        )
    return microseconds / 1e6 or None


def check_sequence(parameters: dict[str, Value]) -> None:
    """Refuses what would make requests depend on those before them."""
    for name in _SEQUENCE_PARAMETERS:
        if name in parameters:
            raise InvalidRequestError(
                name,
                f"`{name}` is not supported: models keep nothing from one request to the next; "
                "leave it out",
            )


class TimedContext:
    """The context of a call for one of its requests, which may have less time than the call."""

    def __init__(self, context: Any, timeout_seconds: float | None) -> None:
        self._context = context
        self._end = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    def time_remaining(self) -> float | None:
        """Seconds that are left to the request; None for no limit."""
        remaining: float | None = self._context.time_remaining()
        if self._end is None:
            return remaining
        own = max(0.0, self._end - time.monotonic())
        return own if remaining is None else min(own, remaining)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)
