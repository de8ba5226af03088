"""Schedulers for tests, sequences for them, and steps with plain outcomes."""

from typing import Any

from fakes import make_sequence, run_plainly
from seqserve.batch import Batch
from seqserve.cache_budget import CacheBudget
from seqserve.event import Event
from seqserve.intake import SchedulerLimits
from seqserve.scheduler import Scheduler
from seqserve.sequence import Sequence

MAX_ROWS = 8


def make_scheduler(**limits: int) -> Scheduler:
    """A scheduler of an encoder-decoder model."""
    values = {"max_batch_size": MAX_ROWS, "max_batch_tokens": 1024}
    return Scheduler("encode", SchedulerLimits(**(values | limits)))


def make_budget(max_rows: int = MAX_ROWS, **changes: int) -> CacheBudget:
    """Rows of 1 byte a position: 96 bytes with 32 source and 32 target positions."""
    values = {"max_bytes": 10**6, "target_position_bytes": 1, "source_position_bytes": 1}
    return CacheBudget(max_rows=max_rows, num_tensors=1, **(values | changes))


def lengths(batch: Batch | None) -> list[int]:
    """Source lengths of a batch: how these tests tell sequences apart."""
    assert batch is not None
    return [sequence.source_length for sequence in batch.sequences]


def add_lengths(scheduler: Scheduler, *source_lengths: int, **options: Any) -> list[Sequence]:
    """Adds one sequence of each length."""
    sequences = [make_sequence(range(length), **options) for length in source_lengths]
    for sequence in sequences:
        scheduler.add(sequence)
    return sequences


def step(scheduler: Scheduler, now: float = 0.0) -> tuple[str, list[Event]]:
    """Runs one batch with plain outcomes."""
    batch = scheduler.next_batch(now)
    assert batch is not None
    events = scheduler.update(batch, run_plainly(batch), now)
    scheduler.check()
    return batch.phase, events


def decode_plainly(scheduler: Scheduler, num_steps: int) -> list[str]:
    """Runs steps, and tells their phases."""
    return [step(scheduler)[0] for _ in range(num_steps)]
