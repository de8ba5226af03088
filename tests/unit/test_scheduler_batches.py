"""Batches of the scheduler: which sequences go together, within the budget of tokens."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import run_plainly
from scheduler_steps import add_lengths, decode_plainly, lengths, make_scheduler, step
from seqserve.sequence import Priority


@settings(max_examples=40, deadline=None)
@given(
    sources=st.lists(st.integers(1, 20), min_size=1, max_size=20), tokens=st.sampled_from([10, 40])
)
def test_batches_respect_age_size_and_budget(sources: list[int], tokens: int) -> None:
    """Every batch has the oldest sequence, fits, and costs too much only when it is alone."""
    scheduler = make_scheduler(max_batch_size=5, max_batch_tokens=tokens)
    waiting = add_lengths(scheduler, *sources, max_new_tokens=1)
    while waiting:
        batch = scheduler.next_batch(0.0)
        assert batch is not None
        if batch.phase == "encode":
            assert batch.sequences[0] is waiting[0]
            assert len(batch.sequences) <= 5
            assert batch.padded_tokens <= tokens or len(batch.sequences) == 1
            waiting = [sequence for sequence in waiting if sequence not in batch.sequences]
        scheduler.update(batch, run_plainly(batch), 0.0)


def test_similar_lengths_go_together() -> None:
    """Sequences nearest in length to the oldest join it, the earlier one of equals first."""
    scheduler = make_scheduler(max_batch_size=3)
    add_lengths(scheduler, 5, 90, 6, 50, 4)
    assert lengths(scheduler.next_batch(0.0)) == [5, 6, 4]


def test_only_a_window_is_searched_for_similar_lengths() -> None:
    """A sequence far behind in the queue does not overtake, however well it fits."""
    scheduler = make_scheduler(max_batch_size=2)
    add_lengths(scheduler, 5, *range(7, 14), 5)
    assert lengths(scheduler.next_batch(0.0)) == [5, 7]


def test_padding_counts_against_the_token_budget() -> None:
    """The budget is rows times the longest source, not the sum of lengths."""
    scheduler = make_scheduler(max_batch_tokens=20)
    add_lengths(scheduler, 4, 8, 4)
    assert lengths(scheduler.next_batch(0.0)) == [4, 4]


def test_short_source_does_not_wait_for_long_ones_to_be_encoded() -> None:
    """What is mostly padding is left to other passes, also if the budget would take it."""
    scheduler = make_scheduler(max_batch_tokens=1000)
    add_lengths(scheduler, 10, 100, 90, 14, 30)
    assert lengths(scheduler.next_batch(0.0)) == [10, 14, 30]
    long_ones = make_scheduler(max_batch_tokens=1000)
    add_lengths(long_ones, 100, 90, 10, 95)
    assert lengths(long_ones.next_batch(0.0)) == [100, 95, 90]


def test_source_longer_than_the_budget_runs_alone() -> None:
    """A sequence that alone exceeds the token budget still runs, by itself."""
    scheduler = make_scheduler(max_batch_tokens=10)
    add_lengths(scheduler, 30, 30)
    assert lengths(scheduler.next_batch(0.0)) == [30]


def test_what_lacks_rows_does_not_cost_tokens() -> None:
    """A sequence that is passed over for want of rows leaves the token budget alone."""
    scheduler = make_scheduler(max_batch_size=2, max_batch_tokens=16)
    add_lengths(scheduler, 7)
    add_lengths(scheduler, 8, num_beams=2)
    add_lengths(scheduler, 5)
    limited = scheduler.next_batch(0.0)
    assert lengths(limited) == [7, 5]


def test_passes_beside_running_sequences_are_small() -> None:
    """The budget of tokens is smaller while others stand still, full when nothing runs."""
    scheduler = make_scheduler(max_batch_tokens=40, max_stall_tokens=20)
    add_lengths(scheduler, *[10] * 4, max_new_tokens=9)
    assert lengths(scheduler.next_batch(0.0)) == [10] * 4
    scheduler = make_scheduler(max_batch_tokens=40, max_stall_tokens=20)
    add_lengths(scheduler, 3)
    step(scheduler)
    step(scheduler)
    add_lengths(scheduler, 10, 10, 10, 35)
    assert lengths(scheduler.next_batch(0.0)) == [10, 10]


def test_passes_wait_for_rows_but_not_for_long() -> None:
    """With rows nearly full and many waiting, a pass waits a few steps for more free rows."""
    scheduler = make_scheduler(held_part=2, max_held_steps=3)
    add_lengths(scheduler, *[3] * 6, max_new_tokens=50)
    step(scheduler)
    add_lengths(scheduler, *[5] * 4, max_new_tokens=50)
    assert decode_plainly(scheduler, 4) == ["decode"] * 4
    assert lengths(scheduler.next_batch(0.0)) == [5, 5]


def test_passes_do_not_wait_when_all_that_wait_have_room() -> None:
    """A few inputs that fit are not held back for others that may never come."""
    scheduler = make_scheduler(held_part=2, max_held_steps=3)
    add_lengths(scheduler, *[3] * 6, max_new_tokens=50)
    step(scheduler)
    step(scheduler)
    add_lengths(scheduler, 5, 5)
    assert lengths(scheduler.next_batch(0.0)) == [5, 5]


def test_few_rows_run_while_few_wait() -> None:
    """A short queue waits until less than the preferred rows run; a long one takes all rows."""
    scheduler = make_scheduler(max_batch_size=8, preferred_batch_size=4, max_held_steps=0)
    add_lengths(scheduler, 5, 5, 5)
    assert step(scheduler)[0] == "encode"
    add_lengths(scheduler, 6, 6, 6)
    assert decode_plainly(scheduler, 2) == ["decode", "encode"]
    assert scheduler.num_live_rows == 4
    assert decode_plainly(scheduler, 2) == ["decode", "decode"]
    add_lengths(scheduler, 7, 7)
    assert lengths(scheduler.next_batch(0.0)) == [6, 6, 7, 7]


def test_nobody_waits_long_for_the_preferred_rows() -> None:
    """Half a second, and the urgent not at all."""
    limits = {"max_batch_size": 8, "preferred_batch_size": 2, "max_held_steps": 0}
    scheduler = make_scheduler(**limits)
    add_lengths(scheduler, 5, 5)
    assert step(scheduler, 0.0)[0] == "encode"
    add_lengths(scheduler, 6)
    assert [step(scheduler, now)[0] for now in (0.1, 0.2, 0.4)] == ["decode"] * 3
    assert step(scheduler, 0.6)[0] == "encode"
    scheduler = make_scheduler(**limits)
    add_lengths(scheduler, 5, 5)
    assert step(scheduler)[0] == "encode"
    add_lengths(scheduler, 6, priority=Priority.HIGH)
    assert decode_plainly(scheduler, 2) == ["decode", "encode"]


def test_rows_that_wait_are_counted() -> None:
    """Not sequences: two with four beams each are eight rows."""
    scheduler = make_scheduler(max_batch_size=16, preferred_batch_size=4, max_held_steps=0)
    add_lengths(scheduler, 5, num_beams=2)
    assert step(scheduler)[0] == "encode"
    add_lengths(scheduler, 6)
    add_lengths(scheduler, 7, num_beams=3)
    assert decode_plainly(scheduler, 2) == ["decode", "encode"]


def test_more_beams_than_preferred_rows_still_run() -> None:
    """The preferred rows are no limit of one sequence, nor more than there are rows."""
    scheduler = make_scheduler(max_batch_size=8, preferred_batch_size=4, max_held_steps=0)
    add_lengths(scheduler, 5, num_beams=6)
    assert step(scheduler)[0] == "encode"
    scheduler = make_scheduler(max_batch_size=2, preferred_batch_size=4, max_held_steps=0)
    add_lengths(scheduler, 5, 5, 5)
    assert lengths(scheduler.next_batch(0.0)) == [5, 5]
