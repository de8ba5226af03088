"""The scheduler: which sequences run next, in which cache rows, and that all are answered."""

import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import EOS, START, FakePromise, make_sequence, run_plainly
from seqserve.cache_budget import NOTHING, CacheBudget, CacheExtent
from seqserve.errors import DeadlineError, EngineError
from seqserve.intake import SchedulerLimits
from seqserve.pace import UNKNOWN, Estimate
from seqserve.scheduler import Event, Scheduler
from seqserve.sequence import (
    Batch,
    Candidate,
    EmbeddingVector,
    Generation,
    Outcome,
    Priority,
    Sequence,
)

MAX_ROWS = 8
ESTIMATE = Estimate(token_seconds=0.05, step_seconds=0.5)


def make_scheduler(**limits: int) -> Scheduler:
    """A scheduler of an encoder-decoder model."""
    return Scheduler("encode", SchedulerLimits(**{"max_batch_size": MAX_ROWS, **limits}))


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


class RowModel:
    """The cache as content: what every row holds, copied and written as the engine does."""

    def __init__(self) -> None:
        self.targets: dict[int, tuple[int, ...]] = {}
        self.sources: dict[int, tuple[int, ...]] = {}

    def apply(self, batch: Batch) -> None:
        """Copies rows at once, then encodes or feeds the next token of every hypothesis."""
        moved = [
            (copy, self.targets[copy.source][: copy.target_length], self.sources[copy.source])
            for copy in batch.copies
        ]
        for copy, target, source in moved:
            self.targets[copy.target] = target
            if copy.source_length:
                self.sources[copy.target] = source[: copy.source_length]
        for sequence in batch.sequences:
            search = sequence.search
            assert search is not None
            if batch.phase == "encode":
                for row in sequence.rows:
                    self.sources[row], self.targets[row] = sequence.source_tokens, ()
                continue
            for row, token in zip(sequence.rows, search.next_inputs(), strict=True):
                self.targets[row] = (*self.targets[row][: search.target_length], token)


class Histories:
    """What every live hypothesis has been fed, kept apart from the code under test."""

    def __init__(self) -> None:
        self._tokens: dict[Sequence, list[tuple[int, ...]]] = {}

    def feed(self, sequence: Sequence) -> list[tuple[int, ...]]:
        """All tokens fed to each live hypothesis, the one of this step included."""
        search = sequence.search
        assert search is not None
        return self._tokens.setdefault(sequence, [(START,)] * search.num_rows)

    def extend(self, sequence: Sequence, candidates: list[Candidate]) -> None:
        """Follows the candidates that live on: the first K that do not end."""
        fed = self.feed(sequence)
        lives = [candidate for candidate in candidates if candidate.token != EOS][: len(fed)]
        self._tokens[sequence] = [(*fed[item.parent], item.token) for item in lives]


class Simulation:
    """Random scripts against one scheduler, checked after every step."""

    def __init__(self, chance: random.Random, limits: SchedulerLimits, budget: CacheBudget) -> None:
        self._chance = chance
        self._limits = limits
        self._budget = budget
        self._extent = NOTHING
        """What the cache was resized to."""
        self.scheduler = Scheduler("encode", limits, budget)
        self._cache = RowModel()
        self._histories = Histories()
        self._now = 0.0
        self.added: list[Sequence] = []
        self.answers: dict[Sequence, list[Generation | EmbeddingVector | Exception]] = {}
        self.streamed: dict[Sequence, list[int]] = {}

    def add(self) -> None:
        """A new sequence of random length and width."""
        chance, limit = self._chance, self._limits.max_batch_size
        widths = [beams for beams in (1, 1, 2, 3, 6) if beams <= limit]
        sequence = make_sequence(
            (len(self.added), *range(chance.randrange(10))),  # the first token tells who it is
            **self._kind(chance.choice(widths)),
            max_new_tokens=chance.choice([1, 2, 3, 4, 5, 6, 70]),
            deadline=self._now + chance.choice([3.0, math.inf, math.inf, math.inf]),
            stop_at=self._now + chance.choice([2.0, 9.0, math.inf, math.inf, math.inf]),
            priority=chance.choice(list(Priority)),
            caller=chance.choice("abc"),
            submitted_at=self._now,
            on_tokens=print if chance.random() < 0.5 else None,
        )
        if self._budget.bytes_for(sequence.extent) > self._budget.max_bytes:
            with pytest.raises(ValueError, match="bytes exceed"):
                self.scheduler.add(sequence)
            return
        self.added.append(sequence)
        self.scheduler.add(sequence)

    def _kind(self, width: int) -> dict[str, Any]:
        """Beams, or hypotheses that are drawn side by side."""
        if width == 1 or self._chance.random() < 0.5:
            return {"num_beams": width}
        return {"do_sample": True, "num_return_sequences": width}

    def cancel(self) -> None:
        """The caller of some unanswered sequence goes away."""
        pending = [sequence for sequence in self.added if not sequence.future.done()]
        if pending:
            sequence = self._chance.choice(pending)
            assert isinstance(sequence.future, FakePromise)
            sequence.future.is_done = True

    def step(self) -> None:
        """One turn of the worker's loop."""
        self._now += 1
        self._take(self.scheduler.drop(self._now, self._chance.choice([UNKNOWN, ESTIMATE])))
        self.scheduler.check()
        held = [sequence for sequence in self.added if not sequence.future.done()]
        assert self.scheduler.num_running + self.scheduler.num_waiting == len(held)
        batch = self.scheduler.next_batch(self._now)
        self.scheduler.check()
        if batch is None:
            assert not self.scheduler.has_work
            return
        assert not any(sequence.future.done() for sequence in batch.sequences)
        self._check_rows(batch)
        self._check_budget(batch)
        self._cache.apply(batch)
        if self._chance.random() < 0.03:
            self._take(self.scheduler.fail(batch, EngineError("fault")))
            if batch.resize is not None:
                self._extent = NOTHING
        else:
            self._check_content(batch)
            outcomes = [self._outcome(batch, sequence) for sequence in batch.sequences]
            self._take(self.scheduler.update(batch, outcomes, self._now))
        self.scheduler.check()

    def _check_rows(self, batch: Batch) -> None:
        rows = [row for sequence in batch.sequences for row in sequence.rows]
        assert len({copy.target for copy in batch.copies}) == len(batch.copies)
        if batch.phase == "decode":
            assert sorted(rows) == list(range(batch.num_rows))
            assert batch.num_rows <= self._limits.max_batch_size
        else:
            start = self.scheduler.num_live_rows
            assert rows == list(range(start, start + len(rows)))
            assert start + len(rows) <= self._limits.max_batch_size

    def _check_budget(self, batch: Batch) -> None:
        """What runs and what starts has room to reach its end, within the budget."""
        if batch.resize is not None:
            assert self._extent != batch.resize.extent
            self._extent = batch.resize.extent
        assert self._budget.extent_bytes(self._extent) <= self._budget.max_bytes
        started = [] if batch.phase == "decode" else batch.sequences
        need = NOTHING
        for sequence in dict.fromkeys([*self.scheduler._running, *started]):
            need = need.join(sequence.extent)
        assert self._extent.covers(need)

    def _check_content(self, batch: Batch) -> None:
        for sequence in batch.sequences:
            for row in sequence.rows:
                assert self._cache.sources[row] == sequence.source_tokens
            if batch.phase == "decode":
                held = [self._cache.targets[row] for row in sequence.rows]
                assert held == self._histories.feed(sequence)

    def _outcome(self, batch: Batch, sequence: Sequence) -> Outcome:
        chance = self._chance
        if chance.random() < 0.03:
            return EngineError("this one only")
        if batch.phase == "encode":
            return None
        search = sequence.search
        assert search is not None
        num_beams, length = search.num_rows, search.target_length
        if search.options.num_beams == 1:
            # A drawn hypothesis ends when it likes; then it leaves its row.
            candidates = [
                Candidate(index, chance.choice([EOS, 10, 11, 12]), 0.0, 0.0)
                for index in range(num_beams)
            ]
        else:
            parents = chance.choices(range(num_beams), k=num_beams)
            num_ends = chance.randint(0, num_beams)
            tokens = [(parent, 10 + index) for index, parent in enumerate(parents)]
            tokens += [(parent, EOS) for parent in range(num_ends)]
            tokens += [(0, 50 + index) for index in range(num_beams - num_ends)]
            chance.shuffle(tokens)
            candidates = [
                Candidate(parent, token, -1.0 - length - 0.01 * rank, -1.0)
                for rank, (parent, token) in enumerate(tokens)
            ]
        self._histories.extend(sequence, candidates)
        return candidates

    def _take(self, events: list[Event]) -> None:
        for event in events:
            assert event.answer is not None or event.tokens
            self.streamed.setdefault(event.sequence, []).extend(event.tokens)
            if event.answer is not None:
                self.answers.setdefault(event.sequence, []).append(event.answer)
                assert isinstance(event.sequence.future, FakePromise)
                event.sequence.future.is_done = True


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


def test_oldest_is_always_in_the_next_batch() -> None:
    """Whatever the lengths behind it, the oldest sequence goes first."""
    scheduler = make_scheduler(max_batch_size=2)
    add_lengths(scheduler, 9, 1, 1, 1, 8)
    assert lengths(scheduler.next_batch(0.0)) == [9, 8]


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
    add_lengths(scheduler, 5, *range(20, 27), 5)
    assert lengths(scheduler.next_batch(0.0)) == [5, 20]


def test_padding_counts_against_the_token_budget() -> None:
    """The budget is rows times the longest source, not the sum of lengths."""
    scheduler = make_scheduler(max_batch_tokens=20)
    add_lengths(scheduler, 4, 8, 4)
    assert lengths(scheduler.next_batch(0.0)) == [4, 4]


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
    """Timing has the spans from submission to start, to the end of encode, to the end."""
    scheduler = make_scheduler()
    add_lengths(scheduler, 3, max_new_tokens=1)
    batch = scheduler.next_batch(2.0)
    assert batch is not None
    scheduler.update(batch, [None], 3.0)
    batch = scheduler.next_batch(3.0)
    assert batch is not None
    (event,) = scheduler.update(batch, run_plainly(batch), 7.0)
    assert isinstance(event.answer, Generation)
    assert dataclasses.astuple(event.answer.timing) == (2.0, 1.0, 4.0)
    assert event.answer.hypotheses[0].tokens == (10,)


def test_embed_answers_at_once() -> None:
    """A sequence to embed takes no row and is answered by its first batch."""
    scheduler = Scheduler("embed", SchedulerLimits(max_batch_size=2))
    for length in (3, 4, 5):
        scheduler.add(make_sequence(range(length), is_embedded=True))
    phase, events = step(scheduler, 1.0)
    answers = [event.answer for event in events]
    assert phase == "embed"
    assert [answer.values[0] for answer in answers if isinstance(answer, EmbeddingVector)] == [3, 4]
    assert repr(scheduler) == "Scheduler(waiting=1, running=0, free_rows=2)"


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
    scheduler._limits = SchedulerLimits(max_batch_size=7)
    scheduler._is_checked = False
    with pytest.raises(AssertionError, match="rows go beyond 6"):
        scheduler.check()


def decode_plainly(scheduler: Scheduler, num_steps: int) -> list[str]:
    """Runs steps, and tells their phases."""
    return [step(scheduler)[0] for _ in range(num_steps)]


def test_what_could_never_fit_is_refused() -> None:
    """An input beyond the budget cannot be added; the servicer refuses it before."""
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS), make_budget(max_bytes=300))
    scheduler.add(make_sequence(num_beams=3, max_new_tokens=32))
    with pytest.raises(ValueError, match="384 bytes exceed 300"):
        scheduler.add(make_sequence(num_beams=4, max_new_tokens=32))


def test_cache_is_granted_for_the_longest_that_may_come() -> None:
    """The first batch gets room for all its new tokens, and as many rows as the budget allows."""
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS), make_budget(max_bytes=1_000))
    add_lengths(scheduler, 5, max_new_tokens=100)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert batch.resize == (CacheExtent(3, 128, 32), NOTHING)  # 288 bytes a row
    scheduler.update(batch, [None], 0.0)
    assert scheduler.next_batch(0.0) == Batch("decode", batch.sequences)


def test_long_input_waits_for_memory_and_is_not_overtaken() -> None:
    """Short ones behind a long one do not take the memory that it waits for."""
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS), make_budget(max_bytes=400))
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
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS), make_budget(max_bytes=400))
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
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS), make_budget(max_bytes=10_000))
    add_lengths(scheduler, 9, max_new_tokens=32)
    step(scheduler)
    decode_plainly(scheduler, 4)
    add_lengths(scheduler, 40, max_new_tokens=8)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    assert batch.resize == (CacheExtent(8, 32, 64), CacheExtent(1, 4, 9))


def test_failed_resize_fails_all_and_is_done_again() -> None:
    """After a failure in a batch that resizes the cache, nobody can trust it."""
    scheduler = Scheduler("encode", SchedulerLimits(MAX_ROWS), make_budget())
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
