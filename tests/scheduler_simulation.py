"""A scheduler under random scripts, beside a model of what the rows of its cache would hold."""

import math
import random
from typing import Any

import pytest

from fakes import EOS, START, FakePromise, make_sequence
from seqserve.batch import Batch, Outcome
from seqserve.cache_budget import NOTHING, CacheBudget
from seqserve.errors import EngineError
from seqserve.event import Event
from seqserve.intake import SchedulerLimits
from seqserve.pace import UNKNOWN, Estimate
from seqserve.scheduler import Scheduler
from seqserve.search_state import Candidate
from seqserve.sequence import EncoderOutput, Generation, Priority, Sequence

ESTIMATE = Estimate(token_seconds=0.05, step_seconds=0.5)


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
        self.answers: dict[Sequence, list[Generation | EncoderOutput | Exception]] = {}
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
