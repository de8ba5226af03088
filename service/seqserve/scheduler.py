"""Which sequences run next, and what becomes of them: pure policy.

No thread, clock, asyncio, numpy or onnxruntime: time comes in as an argument, results as plain
records. The worker thread owns the one scheduler of its model.

Policy:

* Sequences wait in order of arrival. A batch to encode (or embed) starts with the oldest one and
  takes others of the nearest length from a window behind it, as long as the padded cost stays
  within ``max_batch_tokens`` and rows are free. So padding is small and nobody starves.
* A newly encoded sequence joins the running batch at the next decode step, and leaves it at the
  step it finishes. After each encode step the running sequences get a decode step, so that
  arrivals slow running ones down but never stop them.
* Abandoned and overdue sequences are dropped before every step.

Rows: every live hypothesis has one cache row, and rows of running sequences are dense. Where a
hypothesis stands in another row than it should (its parent beam's, or beyond the end after others
left), the batch says which rows to copy first.
"""

import dataclasses
import itertools
from collections import deque

from seqserve.errors import DeadlineError
from seqserve.sequence import (
    Answer,
    Batch,
    Candidate,
    EmbeddingVector,
    Generation,
    Outcome,
    Phase,
    RowCopy,
    Sequence,
)

_WINDOW_FACTOR = 4
"""Waiting sequences looked at for similar lengths, as a multiple of ``max_batch_size``."""


@dataclasses.dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """How much may run at once."""

    max_batch_size: int = 64
    """Sequences in an encode or embed batch, and rows in the running batch."""
    max_batch_tokens: int = 4096
    """Source tokens of an encode or embed batch, padding included. A single longer sequence
    still runs, alone."""


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """Something to tell the event loop about a sequence."""

    sequence: Sequence
    tokens: list[int] = dataclasses.field(default_factory=list)
    """Newly decided tokens of a streamed sequence."""
    answer: Answer | Exception | None = None
    """The final answer, if this is the end."""


class Scheduler:
    """The waiting and the running sequences of one model."""

    def __init__(self, first_phase: Phase, limits: SchedulerLimits) -> None:
        self._first_phase: Phase = first_phase
        self._limits = limits
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._in_step: list[Sequence] = []
        self._is_decode_due = False

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
    def has_work(self) -> bool:
        """Whether any sequence is unanswered."""
        return bool(self._waiting or self._running)

    def add(self, sequence: Sequence) -> None:
        """Takes a new sequence.

        Raises:
            ValueError: It needs more rows than a batch can have (the servicer refuses such).
        """
        if sequence.num_rows > self._limits.max_batch_size:
            raise ValueError(f"{sequence.num_rows} rows exceed {self._limits.max_batch_size}")
        self._waiting.append(sequence)

    def drop(self, now: float) -> list[Event]:
        """Removes abandoned sequences and fails overdue ones."""
        events: list[Event] = []
        is_any_gone = False
        for sequence in itertools.chain(self._waiting, self._running):
            if sequence.future.done():
                is_any_gone = True
            elif sequence.deadline <= now:
                late = DeadlineError("the deadline passed before the work was done")
                events.append(Event(sequence, answer=late))
        if is_any_gone or events:
            overdue = {id(event.sequence) for event in events}
            self._waiting = deque(s for s in self._waiting if _is_wanted(s, overdue))
            self._running = [s for s in self._running if _is_wanted(s, overdue)]
        return events

    def fail_all(self, error: Exception) -> list[Event]:
        """Removes and fails everything, also the batch of a step that was never completed."""
        unanswered = dict.fromkeys([*self._in_step, *self._running, *self._waiting])
        self._in_step = []
        self._waiting.clear()
        self._running.clear()
        return [Event(sequence, answer=error) for sequence in unanswered]

    def next_batch(self, now: float) -> Batch | None:
        """Decides the next step; None when there is nothing to do."""
        batch = self._make_batch(now)
        self._in_step = [] if batch is None else batch.sequences
        return batch

    def _make_batch(self, now: float) -> Batch | None:
        if self._running and self._is_decode_due:
            return self._decode_batch()
        taken = self._take_waiting()
        if taken:
            for sequence in taken:
                sequence.started_at = now
            copies = self._lay_out()
            if self._first_phase == "encode":
                first_free = self.num_live_rows
                for sequence in taken:
                    sequence.rows = list(range(first_free, first_free + sequence.num_rows))
                    sequence.source_rows = frozenset(sequence.rows)
                    first_free += sequence.num_rows
            self._is_decode_due = True
            return Batch(self._first_phase, taken, copies)
        return self._decode_batch() if self._running else None

    def update(self, batch: Batch, outcomes: list[Outcome], now: float) -> list[Event]:
        """Takes in what a batch produced: appends tokens, finishes sequences, frees rows."""
        events: list[Event] = []
        for sequence, outcome in zip(batch.sequences, outcomes, strict=True):
            if isinstance(outcome, Exception):
                events.append(Event(sequence, answer=outcome))
                if batch.phase == "decode":
                    self._running.remove(sequence)
            elif batch.phase == "encode":
                sequence.encoded_at = now
                self._running.append(sequence)
            elif batch.phase == "embed":
                sequence.encoded_at = sequence.finished_at = now
                assert outcome is not None
                assert not isinstance(outcome, list)
                events.append(Event(sequence, answer=EmbeddingVector(outcome, sequence.timing())))
            else:
                assert isinstance(outcome, list)
                event = self._advance(sequence, outcome, now)
                if event is not None:
                    events.append(event)
        self._in_step = []
        return events

    def _advance(self, sequence: Sequence, outcome: list[Candidate], now: float) -> Event | None:
        search = sequence.search
        assert search is not None
        parents = search.advance(outcome)
        tokens: list[int] = []
        if sequence.on_tokens is not None:
            tokens = search.decided_tokens()[sequence.num_streamed :]
            sequence.num_streamed += len(tokens)
        if search.is_finished:
            sequence.finished_at = now
            self._running.remove(sequence)
            answer = Generation(search.hypotheses(), sequence.timing())
            return Event(sequence, tokens, answer)
        sequence.rows = [sequence.rows[parent] for parent in parents]
        return Event(sequence, tokens) if tokens else None

    def fail(self, batch: Batch, error: Exception) -> list[Event]:
        """Fails the sequences of a batch that could not be computed.

        If the batch had rows to copy, it may have stopped half-way: then no running sequence can
        trust its row, and all fail.
        """
        failed = list(batch.sequences)
        if batch.copies:
            failed += [sequence for sequence in self._running if sequence not in failed]
        self._running = [sequence for sequence in self._running if sequence not in failed]
        self._in_step = []
        return [Event(sequence, answer=error) for sequence in failed]

    def check(self) -> None:
        """Checks what must hold of rows between any two steps, and while one runs.

        Raises:
            AssertionError: A row was lost, belongs to two sequences, holds another source, or does
                not exist; or a sequence runs twice.
        """
        owners: dict[int, Sequence] = {}
        for sequence in dict.fromkeys([*self._running, *self._in_step]):
            rows = sequence.rows
            assert len(rows) == sequence.num_rows, f"{sequence} lost a row"
            assert sequence.source_rows.issuperset(rows), f"{sequence} has a row without its source"
            for row in rows:
                owner = owners.setdefault(row, sequence)
                assert owner is sequence, f"row {row} belongs to two sequences"
        last = self._limits.max_batch_size - 1
        assert not owners or (min(owners) >= 0 and max(owners) <= last), f"rows go beyond {last}"
        assert len(set(self._running)) == len(self._running), "a sequence runs twice"
        assert self.num_free_rows >= 0, f"{self!r} runs more rows than it has"

    def _take_waiting(self) -> list[Sequence]:
        """Removes the sequences of the next encode or embed batch from the queue."""
        limits = self._limits
        if not self._waiting or self._waiting[0].num_rows > self.num_free_rows:
            return []
        oldest = self._waiting[0]
        window = list(itertools.islice(self._waiting, _WINDOW_FACTOR * limits.max_batch_size))
        window.sort(key=lambda sequence: abs(sequence.source_length - oldest.source_length))
        taken: list[Sequence] = []
        free_rows, longest = self.num_free_rows, 0
        for sequence in window:
            if sequence.num_rows > free_rows:
                continue
            longest = max(longest, sequence.source_length)
            is_too_much = (len(taken) + 1) * longest > limits.max_batch_tokens
            if taken and (is_too_much or len(taken) == limits.max_batch_size):
                break
            free_rows -= sequence.num_rows
            taken.append(sequence)
        chosen = {id(sequence) for sequence in taken}
        self._waiting = deque(sequence for sequence in self._waiting if id(sequence) not in chosen)
        return taken

    def _decode_batch(self) -> Batch:
        self._is_decode_due = False
        return Batch("decode", list(self._running), self._lay_out())

    def _lay_out(self) -> list[RowCopy]:
        """Gives the running hypotheses the rows 0..B-1 and says which must be copied for it.

        A hypothesis stays where it is if it can. Else it takes a row that holds its source
        already, one that a dropped beam of its sequence left; else any free row.
        """
        free = set(range(self.num_live_rows))
        homeless: list[tuple[Sequence, int]] = []
        old_rows = [list(sequence.rows) for sequence in self._running]
        for sequence in self._running:
            for index, row in enumerate(sequence.rows):
                if row in free:
                    free.remove(row)
                else:
                    homeless.append((sequence, index))
        strangers = []
        for sequence, index in homeless:
            own = sequence.source_rows & free
            if own:
                sequence.rows[index] = min(own)
                free.remove(min(own))
            else:
                strangers.append((sequence, index))
        for (sequence, index), row in zip(strangers, sorted(free), strict=True):
            sequence.rows[index] = row
        copies = [
            copy
            for sequence, rows in zip(self._running, old_rows, strict=True)
            for copy in _copies(sequence, rows)
        ]
        for sequence in self._running:
            sequence.source_rows = frozenset(sequence.rows)
        return copies


def _is_wanted(sequence: Sequence, overdue: set[int]) -> bool:
    return id(sequence) not in overdue and not sequence.future.done()


def _copies(sequence: Sequence, old_rows: list[int]) -> list[RowCopy]:
    search = sequence.search
    assert search is not None
    return [
        RowCopy(
            source=old,
            target=new,
            target_length=search.target_length,
            source_length=0 if new in sequence.source_rows else sequence.source_length,
        )
        for old, new in zip(old_rows, sequence.rows, strict=True)
        if old != new
    ]
