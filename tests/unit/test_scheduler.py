"""The scheduler: which phase runs next, what becomes of sequences, and that all are answered."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakePromise, make_sequence, run_plainly
from scheduler_simulation import Simulation
from scheduler_steps import add_lengths, make_budget, make_scheduler, step
from seqserve.errors import DeadlineError
from seqserve.intake import SchedulerLimits
from seqserve.scheduler import Scheduler
from seqserve.sequence import EncoderOutput, Generation, Sequence


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32), max_batch_size=st.sampled_from([1, 3, 8, 12]))
def test_random_scripts_keep_rows_and_answers_right(seed: int, max_batch_size: int) -> None:
    """Rows are dense, hold exactly their hypothesis's past, and all sequences are answered once."""
    chance = random.Random(seed)
    limits = SchedulerLimits(
        max_batch_size, chance.choice([6, 30]), chance.choice([6, 30]), 5.0, chance.choice([2, 8])
    )
    budget = make_budget(max_batch_size, max_bytes=chance.choice([200, 1_000, 100_000]))
    simulation = Simulation(chance, limits, budget)
    cancelled: set[Sequence] = set()
    for action in chance.choices("asc", [6, 10, 1], k=chance.randrange(80)):
        if action == "a":
            simulation.add()
        elif action == "s":
            simulation.step()
        else:
            before = {sequence for sequence in simulation.added if sequence.future.done()}
            simulation.cancel()
            cancelled |= {item for item in simulation.added if item.future.done()} - before
    for _ in range(500):
        if not simulation.scheduler.has_work:
            break
        simulation.step()
    rows = limits.max_batch_size
    assert repr(simulation.scheduler) == f"Scheduler(waiting=0, running=0, free_rows={rows})"
    for sequence in simulation.added:
        answers = simulation.answers.get(sequence, [])
        assert len(answers) == (0 if sequence in cancelled else 1)
        if answers and isinstance(answers[0], Generation) and sequence.on_tokens is not None:
            assert simulation.streamed[sequence] == list(answers[0].hypotheses[0].tokens)


def test_repr_counts_what_there_is() -> None:
    """The representation shows waiting, running and free rows."""
    scheduler = make_scheduler()
    add_lengths(scheduler, 3, num_beams=3)
    step(scheduler)
    add_lengths(scheduler, 4, 4)
    assert repr(scheduler) == "Scheduler(waiting=2, running=1, free_rows=5)"
    assert scheduler.has_work


def test_nothing_to_do_is_no_batch() -> None:
    """An empty scheduler has no batch and no work."""
    scheduler = make_scheduler()
    assert scheduler.next_batch(0.0) is None
    assert not scheduler.has_work


def test_encode_and_decode_take_turns() -> None:
    """With work for both, phases alternate, so neither arrivals nor running ones stand still."""
    scheduler = make_scheduler(max_batch_size=4, max_batch_tokens=5)
    add_lengths(scheduler, 5, 5, 5, max_new_tokens=9)
    phases = [step(scheduler)[0] for _ in range(7)]
    assert phases == ["encode", "decode", "encode", "decode", "encode", "decode", "decode"]


def test_sequence_wider_than_a_batch_is_refused() -> None:
    """More beams than rows can never run."""
    with pytest.raises(ValueError, match="9 rows exceed 8"):
        make_scheduler().add(make_sequence(num_beams=9))


def test_overdue_sequences_fail() -> None:
    """At its deadline a sequence fails, waiting or running, and its rows are free."""
    scheduler = make_scheduler()
    running = make_sequence(deadline=5.0, num_beams=2)
    scheduler.add(running)
    step(scheduler)
    waiting = make_sequence(deadline=5.0)
    scheduler.add(waiting)
    assert scheduler.drop(4.9) == []
    events = scheduler.drop(5.0)
    assert [event.sequence for event in events] == [waiting, running]
    assert {type(event.answer) for event in events} == {DeadlineError}
    assert repr(scheduler) == "Scheduler(waiting=0, running=0, free_rows=8)"


def test_abandoned_sequences_vanish_without_event() -> None:
    """Nobody is told about a sequence whose caller has gone, even past its deadline."""
    scheduler = make_scheduler()
    sequence = make_sequence(deadline=1.0)
    assert isinstance(sequence.future, FakePromise)
    scheduler.add(sequence)
    sequence.future.is_done = True
    assert scheduler.drop(2.0) == []
    assert not scheduler.has_work


def test_answer_tells_where_time_went() -> None:
    """Timing has the spans from submission to start, to the end of encode, to the end.

    And that from arrival, here the submission, to the first token.
    """
    scheduler = make_scheduler()
    add_lengths(scheduler, 3, max_new_tokens=1)
    batch = scheduler.next_batch(2.0)
    assert batch is not None
    scheduler.update(batch, [None], 3.0)
    batch = scheduler.next_batch(3.0)
    assert batch is not None
    (event,) = scheduler.update(batch, run_plainly(batch), 7.0)
    assert isinstance(event.answer, Generation)
    assert dataclasses.astuple(event.answer.timing) == (2.0, 1.0, 4.0, 7.0, False)
    assert event.answer.hypotheses[0].tokens == (10,)


def test_embed_answers_at_once() -> None:
    """A sequence to embed takes no row and is answered by its first batch."""
    scheduler = Scheduler("embed", SchedulerLimits(max_batch_size=2, max_batch_tokens=1024))
    for length in (3, 4, 5):
        scheduler.add(make_sequence(range(length), is_embedded=True))
    phase, events = step(scheduler, 1.0)
    answers = [event.answer for event in events]
    assert phase == "embed"
    assert [answer.values[0] for answer in answers if isinstance(answer, EncoderOutput)] == [3, 4]
    assert repr(scheduler) == "Scheduler(waiting=1, running=0, free_rows=2)"
