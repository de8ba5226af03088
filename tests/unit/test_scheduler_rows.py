"""Rows of the scheduler: what is copied when hypotheses move, and that mixed-up rows are found."""

from collections.abc import Callable

import pytest

from fakes import FakePromise, run_plainly
from scheduler_steps import MAX_ROWS, add_lengths, make_scheduler, step
from seqserve.intake import SchedulerLimits
from seqserve.scheduler import Scheduler
from seqserve.search_state import Candidate
from seqserve.sequence import Sequence


def test_hypothesis_that_moves_within_its_sequence_keeps_the_source() -> None:
    """A copy between rows of one sequence leaves out the source, which the row has already."""
    scheduler = make_scheduler()
    add_lengths(scheduler, 3, num_beams=2)
    step(scheduler)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    both_from_second = [Candidate(1, 10, -1.0, -1.0), Candidate(1, 11, -2.0, -1.0)]
    scheduler.update(batch, [[*both_from_second, *both_from_second]], 0.0)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert [tuple(copy) for copy in batch.copies] == [(1, 0, 1, 0, 1)]


def test_row_of_another_sequence_is_copied_with_its_source() -> None:
    """A hypothesis that moves into a leaver's row brings source and target, once."""
    scheduler = make_scheduler()
    first, _ = add_lengths(scheduler, 3, 4)
    step(scheduler)
    step(scheduler)
    assert isinstance(first.future, FakePromise)
    first.future.is_done = True
    scheduler.drop(0.0)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert [tuple(copy) for copy in batch.copies] == [(1, 0, 1, 4, 0)]
    scheduler.update(batch, run_plainly(batch), 0.0)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert batch.copies == []


def test_homeless_hypothesis_prefers_a_row_of_its_own_sequence() -> None:
    """A lower row that another sequence left is not taken: its source would have to be copied."""
    scheduler = make_scheduler()
    (first,) = add_lengths(scheduler, 3)
    add_lengths(scheduler, 3, 3, num_beams=2)
    step(scheduler)
    step(scheduler)
    assert isinstance(first.future, FakePromise)
    first.future.is_done = True
    scheduler.drop(0.0)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    rows = [list(sequence.rows) for sequence in batch.sequences]
    both_from_first = [Candidate(0, 10, -1.0, -1.0), Candidate(0, 11, -2.0, -1.0)]
    scheduler.update(batch, [both_from_first * 2, both_from_first * 2], 0.0)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert [sequence.rows for sequence in batch.sequences] == rows
    assert [copy.source_length for copy in batch.copies] == [0, 0]
    assert min(rows[0]) > min(rows[1])


def lose_a_row(first: Sequence, second: Sequence, scheduler: Scheduler) -> None:
    """A hypothesis without a row."""
    first.rows.pop()


def share_a_row(first: Sequence, second: Sequence, scheduler: Scheduler) -> None:
    """Two sequences would write over each other."""
    first.rows[0] = second.rows[0]
    first.source_rows = first.source_rows | second.source_rows


def stray_from_the_source(first: Sequence, second: Sequence, scheduler: Scheduler) -> None:
    """A hypothesis would attend to a source that is not its own."""
    first.rows[0] = MAX_ROWS - 1


def leave_the_cache(first: Sequence, second: Sequence, scheduler: Scheduler) -> None:
    """There is no such row."""
    first.rows[0] = MAX_ROWS
    first.source_rows = frozenset(first.rows)


def run_twice(first: Sequence, second: Sequence, scheduler: Scheduler) -> None:
    """It would be advanced twice in one step."""
    scheduler._running.append(first)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_a_row, "lost a row"),
        (share_a_row, "row 2 belongs to two sequences"),
        (stray_from_the_source, "has a row without its source"),
        (leave_the_cache, "rows go beyond 7"),
        (run_twice, "a sequence runs twice"),
    ],
)
@pytest.mark.parametrize("is_in_step", [False, True])
def test_damage_is_found(
    damage: Callable[[Sequence, Sequence, Scheduler], None], message: str, is_in_step: bool
) -> None:
    """``check`` finds rows that are mixed up, between steps and while sequences are encoded."""
    scheduler = make_scheduler()
    first, second = add_lengths(scheduler, 3, 4, num_beams=2)
    if is_in_step and damage is not run_twice:
        assert scheduler.next_batch(0.0) is not None
    else:
        step(scheduler)
    scheduler._is_checked = False
    scheduler.check()
    damage(first, second, scheduler)
    scheduler._is_checked = False
    with pytest.raises(AssertionError, match=message):
        scheduler.check()


def test_more_rows_than_there_are_is_found() -> None:
    """``check`` counts the rows of everything that runs."""
    scheduler = make_scheduler()
    add_lengths(scheduler, 3, num_beams=8)
    step(scheduler)
    scheduler._limits = SchedulerLimits(max_batch_size=7, max_batch_tokens=1024)
    scheduler._is_checked = False
    with pytest.raises(AssertionError, match="rows go beyond 6"):
        scheduler.check()
