"""Memory of the scheduler: what the cache is resized to, and who waits for room in it."""

import pytest

from fakes import make_sequence
from scheduler_steps import MAX_ROWS, add_lengths, decode_plainly, lengths, make_budget, step
from seqserve.batch import Batch
from seqserve.cache_budget import NOTHING, CacheExtent
from seqserve.intake import SchedulerLimits
from seqserve.scheduler import Scheduler


def test_what_could_never_fit_is_refused() -> None:
    """An input beyond the budget cannot be added; the servicer refuses it before."""
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS, 1024), make_budget(max_bytes=300))
    scheduler.add(make_sequence(num_beams=3, max_new_tokens=32))
    with pytest.raises(ValueError, match="384 bytes exceed 300"):
        scheduler.add(make_sequence(num_beams=4, max_new_tokens=32))


def test_cache_is_granted_for_the_longest_that_may_come() -> None:
    """The first batch gets room for all its new tokens, and as many rows as the budget allows."""
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS, 1024), make_budget(max_bytes=1_000))
    add_lengths(scheduler, 5, max_new_tokens=100)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert batch.resize == (CacheExtent(3, 128, 32), NOTHING)  # 288 bytes a row
    scheduler.update(batch, [None], 0.0)
    assert scheduler.next_batch(0.0) == Batch("decode", batch.sequences)


def test_long_input_waits_for_memory_and_is_not_overtaken() -> None:
    """Short ones behind a long one do not take the memory that it waits for."""
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS, 1024), make_budget(max_bytes=400))
    add_lengths(scheduler, 5, 5, max_new_tokens=3)
    step(scheduler)
    add_lengths(scheduler, 6, max_new_tokens=96)  # 224 bytes: one row of that length
    add_lengths(scheduler, 7, max_new_tokens=3)
    assert decode_plainly(scheduler, 3) == ["decode"] * 3
    batch = scheduler.next_batch(0.0)
    assert lengths(batch) == [6]
    assert batch is not None
    assert batch.resize == (CacheExtent(1, 96, 32), NOTHING)


def test_cache_shrinks_when_that_makes_room() -> None:
    """Positions that nobody needs any more are given up for rows."""
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS, 1024), make_budget(max_bytes=400))
    add_lengths(scheduler, 5, max_new_tokens=96)
    step(scheduler)
    decode_plainly(scheduler, 96)
    add_lengths(scheduler, 6, 6, 6, 6, max_new_tokens=3)
    batch = scheduler.next_batch(0.0)
    assert lengths(batch) == [6, 6, 6, 6]
    assert batch is not None
    assert batch.resize == (CacheExtent(4, 32, 32), NOTHING)


def test_resizing_keeps_what_runs() -> None:
    """The batch says which rows are in use, and how far they are filled."""
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS, 1024), make_budget(max_bytes=10_000))
    add_lengths(scheduler, 9, max_new_tokens=32)
    step(scheduler)
    decode_plainly(scheduler, 4)
    add_lengths(scheduler, 40, max_new_tokens=8)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert batch.resize == (CacheExtent(8, 32, 64), CacheExtent(1, 4, 9))
