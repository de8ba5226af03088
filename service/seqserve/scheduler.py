"""Which sequences run next, and what becomes of them: pure policy.

No thread, clock, asyncio, numpy or onnxruntime: time comes in as an argument, results as plain
records. The worker thread owns the one scheduler of its model. What holds:

* Every sequence that was added is answered exactly once, unless its caller has gone. A fault in its
  search, or of the tokenizer that looks for stop sequences there, ends that sequence alone.
* :mod:`seqserve.waiting_queue` says whose turn is next, :mod:`seqserve.intake` which sequences
  start together and when: within the rows and the budget of the cache, so that what runs is never
  evicted.
* A newly encoded sequence joins the running batch at the next decode step, and leaves it at the
  step it finishes. After each encode step the running sequences get a decode step, so that
  arrivals slow running ones down but never stop them.
* Before every step sequences that are abandoned or overdue are dropped, those that cannot be in
  time are answered at once, and those whose ``stop_at`` has come end with what they have.
* :mod:`seqserve.row_layout` keeps the rows of running hypotheses dense. Rows change hands only when
  sequences start, leave, or move between their beams; only then rows are laid out and checked.
"""

from collections.abc import Collection
from functools import partial

from seqserve.batch import Batch, Outcome, Phase, RowCopy, to_encoder_output
from seqserve.cache_budget import NOTHING, CacheBudget, CacheExtent
from seqserve.containment import contained
from seqserve.drop import Drop, find_drops
from seqserve.errors import EngineError
from seqserve.event import Event, make_end, take_decided
from seqserve.intake import Intake, SchedulerLimits, valid_extent
from seqserve.pace import UNKNOWN, Estimate
from seqserve.row_layout import check_rows, lay_out, place
from seqserve.search_state import Candidate
from seqserve.sequence import Generation, Sequence
from seqserve.time_limit import Work, due_answers, early_answers, least_work


class Scheduler:
    """The waiting and the running sequences of one model."""

    def __init__(
        self, first_phase: Phase, limits: SchedulerLimits, budget: CacheBudget | None = None
    ) -> None:
        self._first_phase: Phase = first_phase
        self._limits = limits
        self._intake = Intake(limits, budget)
        self._waiting = self._intake.waiting
        self._running: list[Sequence] = []
        self._in_step: list[Sequence] = []
        self.drops: list[Drop] = []
        """What the last call of ``drop`` gave up."""
        self._most_work = Work(0, 0)
        self._is_decode_due = False
        self._is_laid_out = self._is_checked = True
        """Whether no row has changed hands since."""

    def __repr__(self) -> str:
        """The state at a glance, for tests and logs."""
        return (
            f"Scheduler(waiting={self.num_waiting}, running={self.num_running}, "
            f"free_rows={self.num_free_rows})"
        )

    @property
    def num_waiting(self) -> int:
        """Sequences not started."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Sequences between encode and their last token."""
        return len(self._running)

    @property
    def num_live_rows(self) -> int:
        """Rows of the running batch."""
        return sum(sequence.num_rows for sequence in self._running)

    @property
    def num_free_rows(self) -> int:
        """Rows that new sequences may take."""
        return self._limits.max_batch_size - self.num_live_rows

    @property
    def oldest_at(self) -> float:
        """When the oldest sequence that waits was submitted; infinity if none does."""
        return self._waiting.oldest_at

    @property
    def has_work(self) -> bool:
        """Whether any sequence is unanswered."""
        return bool(self._running or self.num_waiting)

    @property
    def cache_extent(self) -> CacheExtent:
        """What the cache is, once the batch that resizes it has run."""
        return self._intake.extent

    def valid_extents(self) -> list[CacheExtent]:
        """The parts of the cache that running sequences have filled."""
        return [valid_extent(sequence) for sequence in self._running]

    def add(self, sequence: Sequence) -> None:
        """Takes a new sequence.

        Raises:
            ValueError: It could never run (the servicer refuses such).
        """
        self._intake.add(sequence)
        self._most_work = Work(*map(max, self._most_work, least_work(sequence)))

    def drop(self, now: float, estimate: Estimate = UNKNOWN) -> list[Event]:
        """Removes sequences that are abandoned or overdue, cannot be in time, or must stop.

        Args:
            now: The time.
            estimate: What steps take at least.
        """
        everyone = [*self._waiting, *self._running]
        gone = {sequence for sequence in everyone if sequence.future.done()}
        answers = dict(due_answers(everyone, now))
        answers |= early_answers(self._waiting, now, estimate, self._most_work)
        self.drops = []
        if gone or answers:
            self.drops += find_drops(gone, answers, self._running, now)
        events = [make_end(sequence, answer) for sequence, answer in answers.items()]
        gone.update(answers)
        if gone:
            self._waiting.remove(gone)
            self._leave(gone)
        return events

    def fail_all(self, error: Exception) -> list[Event]:
        """Removes and fails everything, also the batch of a step that was never completed."""
        unanswered = dict.fromkeys([*self._in_step, *self._running, *self._waiting])
        self._in_step = []
        self._waiting.remove(unanswered.keys())
        self._running.clear()
        return [Event(sequence, answer=error) for sequence in unanswered]

    def rest(self) -> None:
        """Takes note that the cache was given back, while nothing ran."""
        assert not self._running
        self._intake.extent = NOTHING

    def next_batch(self, now: float) -> Batch | None:
        """Decides the next step; None when there is nothing to do."""
        batch = self._make_batch(now)
        self._in_step = [] if batch is None else batch.sequences
        return batch

    def _make_batch(self, now: float) -> Batch | None:
        if self._running and self._is_decode_due:
            return self._decode_batch()
        taken = self._intake.take(now, self._running)
        if not taken:
            return self._decode_batch() if self._running else None
        self._in_step = taken  # they wait no more, and are to be answered whatever fails now
        for sequence in taken:
            sequence.started_at = now
        self._is_decode_due = True
        copies = self._lay_out()
        if self._first_phase == "encode":
            place(taken, self.num_live_rows)
            self._is_checked = False
        return Batch(self._first_phase, taken, copies, self._intake.resize(self._running, taken))

    def _decode_batch(self) -> Batch:
        self._is_decode_due = False
        return Batch("decode", list(self._running), self._lay_out())

    def _lay_out(self) -> list[RowCopy]:
        """Makes the rows of running sequences dense, if any has changed hands."""
        if self._is_laid_out:
            return []
        self._is_laid_out, self._is_checked = True, False
        return lay_out(self._running)

    def _leave(self, sequences: Collection[Sequence]) -> None:
        """Takes sequences out of the running batch, those of them that are in it."""
        kept = [sequence for sequence in self._running if sequence not in sequences]
        if len(kept) < len(self._running):
            self._running = kept
            self._is_laid_out = self._is_checked = False

    def update(self, batch: Batch, outcomes: list[Outcome], now: float) -> list[Event]:
        """Takes in what a batch produced: appends tokens, finishes sequences, frees rows."""
        events: list[Event] = []
        num_rows = batch.num_rows
        for sequence, outcome in zip(batch.sequences, outcomes, strict=True):
            if isinstance(outcome, Exception):
                events.append(Event(sequence, answer=outcome))
                self._leave([sequence])
                self._is_laid_out = False  # its rows are free, even if it was only encoded
            elif batch.phase == "encode":
                sequence.encoded_at = now
                sequence.first_batch_rows = num_rows
                self._running.append(sequence)
            elif batch.phase == "embed":
                sequence.encoded_at = sequence.finished_at = now
                sequence.first_batch_rows = num_rows
                assert outcome is not None
                assert not isinstance(outcome, list)
                events.append(Event(sequence, answer=to_encoder_output(outcome, sequence.timing())))
            else:
                assert isinstance(outcome, list)
                grow = partial(self._advance, sequence, outcome, num_rows, now)
                event = contained(grow, "while a target grew")
                if isinstance(event, EngineError):
                    self._leave([sequence])
                    event = Event(sequence, answer=event)
                if event is not None:
                    events.append(event)
        self._in_step = []
        return events

    def _advance(
        self, sequence: Sequence, outcome: list[Candidate], num_rows: int, now: float
    ) -> Event | None:
        search = sequence.search
        assert search is not None
        is_first = sequence.first_token_at is None and (
            search.target_length >= len(search.options.target_prefix)
        )
        targets = search.targets() if search.options.num_beams > 1 else []
        parents = search.advance(outcome)
        tokens = take_decided(sequence)
        if is_first and (tokens or sequence.on_tokens is None):
            sequence.first_token_at = now
        if search.is_finished:
            sequence.finished_at = now
            sequence.last_batch_rows = num_rows
            self._leave([sequence])
            answer = Generation(search.hypotheses(), sequence.timing())
            return Event(sequence, tokens, answer)
        rows = [sequence.rows[parent] for parent in parents]
        if rows != sequence.rows:
            sequence.row_targets = dict(zip(sequence.rows, targets, strict=False))
            sequence.rows = rows
            self._is_laid_out = self._is_checked = False
        return Event(sequence, tokens) if tokens else None

    def fail(self, batch: Batch, error: Exception) -> list[Event]:
        """Fails the sequences of a batch that could not be computed.

        If the batch had rows to copy or the cache to resize, it may have stopped half-way: then no
        running sequence can trust its row, and all fail.
        """
        failed = list(batch.sequences)
        if batch.copies or batch.resize:
            failed += [sequence for sequence in self._running if sequence not in failed]
        if batch.resize:
            self._intake.extent = NOTHING
        self._leave(failed)
        self._in_step = []
        return [Event(sequence, answer=error) for sequence in failed]

    def check(self) -> None:
        """Checks the rows of what runs, if any has changed hands since the last check.

        Raises:
            AssertionError: Rows are mixed up, or a sequence runs twice.
        """
        if self._is_checked:
            return
        check_rows(dict.fromkeys([*self._running, *self._in_step]), self._limits.max_batch_size)
        assert len(set(self._running)) == len(self._running), "a sequence runs twice"
        assert self.num_free_rows >= 0, f"{self!r} runs more rows than it has"
        self._is_checked = True
