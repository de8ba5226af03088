"""What servicers do with every request."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from fakes import make_submission
from seqserve.admission import Admission
from seqserve.config import ServerConfig
from seqserve.errors import DeadlineError
from seqserve.served_model import ServedModel
from seqserve.servicers.deadline import deadline_of
from seqserve.servicers.requests import run


class FakeContext:
    """A call whose caller waits so many seconds more; None for ever."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def time_remaining(self) -> float | None:
        """In seconds."""
        return self._seconds


@pytest.mark.parametrize(
    ("patience", "expected", "server_limit"),
    [
        (None, 10.0, 10.0),
        (0.0, 0.0, None),
        (2.5, 2.5, None),
        (10.0, 10.0, None),
        (99.0, 10.0, 10.0),
    ],
)
def test_deadline_is_the_earlier_of_the_callers_and_ours(
    patience: float | None, expected: float, server_limit: float | None
) -> None:
    """Nobody waits longer than ``max_request_seconds``, and nothing is done for who has left."""
    context = cast("grpc.aio.ServicerContext[Any, Any]", FakeContext(patience))
    found = deadline_of(context, ServerConfig(max_request_seconds=10.0))
    assert found.at - time.monotonic() == pytest.approx(expected, abs=0.5)
    assert found.server_limit_seconds == server_limit


@pytest.mark.parametrize("server_limit", [None, 60.0])
async def test_worker_that_never_answers_keeps_nobody_beyond_the_deadline(
    server_limit: float | None,
) -> None:
    """A step that takes for ever, or a thread that is gone, is no reason to wait for ever."""
    fields = {"submit": lambda _: None, "token_admission": Admission(9)}
    model = cast("ServedModel", SimpleNamespace(**fields))
    sequence, future = make_submission(deadline=time.monotonic() - 5.0)
    sequence.server_limit_seconds = server_limit
    limit = "the deadline" if server_limit is None else "the server's limit of 60 seconds"
    with pytest.raises(DeadlineError, match=f"^{limit}"):
        await run(model, [sequence])
    assert future.cancelled()
