"""Faults under the scheduler: who fails with a batch, and who goes on."""

import pytest

from fakes import FakePromise
from scheduler_steps import MAX_ROWS, add_lengths, lengths, make_budget, make_scheduler, step
from seqserve.cache_budget import NOTHING, CacheExtent
from seqserve.errors import EngineError
from seqserve.intake import SchedulerLimits
from seqserve.scheduler import Scheduler
from seqserve.search_state import Candidate


def test_fault_of_one_sequence_spares_the_others() -> None:
    """An outcome that is an error ends its sequence alone."""
    scheduler = make_scheduler()
    first, second = add_lengths(scheduler, 3, 3)
    step(scheduler)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    fault = EngineError("not finite")
    events = scheduler.update(batch, [fault, [Candidate(0, 10, 0.0, 0.0)]], 0.0)
    assert [(event.sequence, event.answer) for event in events] == [(first, fault)]
    assert lengths(scheduler.next_batch(0.0)) == [second.source_length]


def test_failed_encode_spares_running_sequences() -> None:
    """A failed encode batch that moved no row leaves the running sequences alone."""
    scheduler = make_scheduler()
    add_lengths(scheduler, 3)
    step(scheduler)
    step(scheduler)
    (late,) = add_lengths(scheduler, 4)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert batch.copies == []
    events = scheduler.fail(batch, EngineError("fault"))
    assert [event.sequence for event in events] == [late]
    assert repr(scheduler) == "Scheduler(waiting=0, running=1, free_rows=7)"


def test_failed_batch_that_moves_rows_fails_all_running() -> None:
    """If a failed batch had rows to copy, no running sequence can trust its rows."""
    scheduler = make_scheduler()
    first, second = add_lengths(scheduler, 3, 3)
    step(scheduler)
    step(scheduler)
    assert isinstance(first.future, FakePromise)
    first.future.is_done = True
    scheduler.drop(0.0)
    (late,) = add_lengths(scheduler, 4)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert [(copy.source, copy.target) for copy in batch.copies] == [(1, 0)]
    events = scheduler.fail(batch, EngineError("fault"))
    assert [event.sequence for event in events] == [late, second]


@pytest.mark.parametrize("num_steps", [0, 1, 2])
def test_fail_all_covers_a_step_that_was_never_completed(num_steps: int) -> None:
    """Waiting, running and taken sequences all fail, each once, even in the middle of a step."""
    scheduler = make_scheduler(max_batch_size=2)
    sequences = add_lengths(scheduler, 3, 3, 3)
    for _ in range(num_steps):
        step(scheduler)
    scheduler.next_batch(0.0)
    events = scheduler.fail_all(EngineError("lost"))
    assert sorted(map(id, sequences)) == sorted(id(event.sequence) for event in events)
    assert scheduler.fail_all(EngineError("lost")) == []
    assert not scheduler.has_work


def test_failed_resize_fails_all_and_is_done_again() -> None:
    """After a failure in a batch that resizes the cache, nobody can trust it."""
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS, 1024), make_budget())
    (running,) = add_lengths(scheduler, 5)
    step(scheduler)
    step(scheduler)
    (late,) = add_lengths(scheduler, 50)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    events = scheduler.fail(batch, EngineError("no memory"))
    assert [event.sequence for event in events] == [late, running]
    add_lengths(scheduler, 50)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert batch.resize == (CacheExtent(MAX_ROWS, 32, 64), NOTHING)
