"""Why sequences are given up, and whether they ran."""

import math

import pytest

from fakes import FakePromise, make_sequence
from scheduler_steps import make_scheduler, step
from seqserve.drop import Drop, DropReason
from seqserve.pace import Estimate
from seqserve.sequence import Sequence


def cancel(sequence: Sequence) -> None:
    """What the event loop does when a caller leaves."""
    assert isinstance(sequence.future, FakePromise)
    sequence.future.is_done = True


@pytest.mark.parametrize(
    ("deadline", "now", "reason"),
    [
        (math.inf, 5.0, DropReason.CANCELLED),
        (10.0, 5.0, DropReason.CANCELLED),
        (10.0, 9.8, DropReason.CANCELLED),
        (10.0, 9.95, DropReason.EXPIRED),  # a caller's clock may ring before ours
        (10.0, 11.0, DropReason.EXPIRED),
    ],
)
def test_callers_who_leave_are_told_apart(deadline: float, now: float, reason: DropReason) -> None:
    """One who leaves when its deadline passes did not change its mind."""
    scheduler = make_scheduler()
    sequence = make_sequence(deadline=deadline)
    scheduler.add(sequence)
    cancel(sequence)
    scheduler.drop(now)
    assert scheduler.drops == [Drop(reason, is_running=False)]
    scheduler.drop(now)
    assert scheduler.drops == []


def test_running_sequences_count_as_running() -> None:
    """What was started has cost something."""
    scheduler = make_scheduler()
    sequence, other = make_sequence(), make_sequence(deadline=3.0)
    scheduler.add(sequence)
    scheduler.add(other)
    step(scheduler)
    cancel(sequence)
    scheduler.drop(4.0)
    assert sorted(scheduler.drops) == [
        Drop(DropReason.CANCELLED, is_running=True),
        Drop(DropReason.EXPIRED, is_running=True),
    ]


def test_what_cannot_be_in_time_is_hopeless() -> None:
    """It is refused before its deadline; what ends with what it has is not given up."""
    scheduler = make_scheduler()
    scheduler.add(make_sequence(deadline=10.0))
    scheduler.add(make_sequence(stop_at=2.0))
    scheduler.drop(5.0, Estimate(100.0, 100.0))
    assert scheduler.drops == [Drop(DropReason.HOPELESS, is_running=False)]
