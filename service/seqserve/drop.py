"""Work that is given up before it is done: whose, and why."""

import enum
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from seqserve.errors import DeadlineError
from seqserve.sequence import Sequence

_DEADLINE_SLACK = 0.01
"""Seconds, and part of the whole: gRPC rounds the deadline it sends up by as much."""


class DropReason(enum.StrEnum):
    """Why a sequence was given up."""

    CANCELLED = "cancelled"
    EXPIRED = "expired"
    HOPELESS = "hopeless"


class Drop(NamedTuple):
    """A sequence that was given up."""

    reason: DropReason
    is_running: bool
    """Whether it had been started."""


def find_drops(
    gone: Iterable[Sequence],
    answers: Mapping[Sequence, object],
    running: Iterable[Sequence],
    now: float,
) -> Iterator[Drop]:
    """What is given up before a step.

    Args:
        gone: Sequences whose callers wait no more.
        answers: Sequences that end now, with what they are answered.
        running: Those that have been started.
        now: The time.
    """
    started = set(running)
    for sequence in gone:
        reason = DropReason.EXPIRED if _is_overdue(sequence, now) else DropReason.CANCELLED
        yield Drop(reason, sequence in started)
    for sequence, answer in answers.items():
        if isinstance(answer, DeadlineError):
            reason = DropReason.EXPIRED if sequence.deadline <= now else DropReason.HOPELESS
            yield Drop(reason, sequence in started)


def is_late(remaining_seconds: float, patience_seconds: float) -> bool:
    """Whether a caller who has gone left because of its deadline: its clock may ring first.

    Args:
        remaining_seconds: From now to the deadline, by our clock.
        patience_seconds: From the call's beginning to the deadline.
    """
    return remaining_seconds <= _DEADLINE_SLACK * (1 + patience_seconds)


def _is_overdue(sequence: Sequence, now: float) -> bool:
    if sequence.deadline == math.inf:
        return False
    return is_late(sequence.deadline - now, sequence.deadline - sequence.submitted_at)
