"""Fairness of the scheduler: nobody is overtaken for ever, whoever else calls."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import make_sequence
from scheduler_steps import (
    MAX_ROWS,
    add_lengths,
    decode_plainly,
    lengths,
    make_budget,
    make_scheduler,
    step,
)
from seqserve.intake import SchedulerLimits
from seqserve.scheduler import Scheduler
from seqserve.sequence import Priority, Sequence


def test_oldest_is_always_in_the_next_batch() -> None:
    """Whatever the lengths behind it, the oldest sequence goes first."""
    scheduler = make_scheduler(max_batch_size=2)
    add_lengths(scheduler, 9, 1, 1, 1, 8)
    assert lengths(scheduler.next_batch(0.0)) == [9, 8]


def test_wide_oldest_is_not_overtaken() -> None:
    """While the oldest waits for rows, narrower ones behind it wait too: it cannot starve."""
    scheduler = make_scheduler(max_batch_size=4)
    add_lengths(scheduler, 3, num_beams=3)
    step(scheduler)
    add_lengths(scheduler, 5, num_beams=4)
    add_lengths(scheduler, 6)
    phases = [step(scheduler)[0] for _ in range(3)]
    assert phases == ["decode"] * 3
    assert lengths(scheduler.next_batch(0.0)) == [5]


def test_classes_are_not_mixed_while_the_higher_one_fills_a_batch() -> None:
    """A lower class fits in where the higher one leaves room, however well its lengths match."""
    scheduler = make_scheduler(max_batch_size=3)
    add_lengths(scheduler, 5, 5, priority=Priority.LOW)
    add_lengths(scheduler, 6, 9, priority=Priority.HIGH)
    assert lengths(scheduler.next_batch(0.0)) == [6, 9, 5]


def test_single_input_waits_for_one_batch_of_a_bulk_caller() -> None:
    """With 2,000 inputs of one caller queued, another's is in the next batch but one at the latest.

    Its length may not fit into the next one; then it is the first of the one after it.
    """
    scheduler = make_scheduler(max_held_steps=0)
    add_lengths(scheduler, *[4] * 2000, max_new_tokens=4, caller="bulk")
    decode_plainly(scheduler, 3)
    (single,) = add_lengths(scheduler, 9, max_new_tokens=4, caller="single")
    num_passes = num_steps = 0
    while not single.rows:
        num_passes += step(scheduler)[0] == "encode"
        num_steps += 1
    assert num_passes <= 2
    assert num_steps <= 8  # what runs ends, one batch, and its own pass


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_waiting_is_bounded(seed: int) -> None:
    """Wide, long and low inputs start in bounded time against a stream of easy, high ones."""
    chance = random.Random(seed)
    limits = SchedulerLimits(MAX_ROWS, 64, 32, priority_ageing_seconds=5.0)
    scheduler = Scheduler("encode", limits, make_budget(max_bytes=1_000))
    sequences: list[Sequence] = []
    for now in range(200):
        is_hard = chance.random() < 0.1
        sequence = make_sequence(
            range(chance.randint(1, 30)),
            num_beams=3 if is_hard else 1,
            max_new_tokens=70 if is_hard else 3,
            priority=Priority.LOW if is_hard else Priority.HIGH,
            caller="abc"[now % 3],
            submitted_at=now,
        )
        if now % 30 == 0 or not is_hard:
            sequences.append(sequence)
            scheduler.add(sequence)
        for _ in range(8):
            if scheduler.has_work:
                step(scheduler, now)
    for _ in range(20_000):
        if not scheduler.has_work:
            break
        step(scheduler, 200.0)
    assert not scheduler.has_work
    assert max(item.started_at - item.submitted_at for item in sequences) <= 100
