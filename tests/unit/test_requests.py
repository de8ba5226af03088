"""What servicers do with every request."""

from __future__ import annotations

import time
from typing import Any, cast

import grpc
import pytest

from seqserve.config import ServerConfig
from seqserve.servicers.requests import deadline


class FakeContext:
    """A call whose caller waits so many seconds more; None for ever."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def time_remaining(self) -> float | None:
        """In seconds."""
        return self._seconds


@pytest.mark.parametrize(
    ("patience", "expected"), [(None, 10.0), (0.0, 0.0), (2.5, 2.5), (10.0, 10.0), (99.0, 10.0)]
)
def test_deadline_is_the_earlier_of_the_callers_and_ours(
    patience: float | None, expected: float
) -> None:
    """Nobody waits longer than ``max_request_seconds``, and nothing is done for who has left."""
    context = cast("grpc.aio.ServicerContext[Any, Any]", FakeContext(patience))
    found = deadline(context, ServerConfig(max_request_seconds=10.0)) - time.monotonic()
    assert found == pytest.approx(expected, abs=0.5)
