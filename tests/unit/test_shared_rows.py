"""Searches of every kind beside each other: rows given back one by one, tops of the model alone."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import EOS, START, FakePromise, make_sequence
from seqserve.batch import Batch, Outcome
from seqserve.choice import choose
from seqserve.generate_options import GenerateOptions
from seqserve.intake import SchedulerLimits
from seqserve.ranking import log_sum_exp
from seqserve.scheduler import Scheduler
from seqserve.search import make_search
from seqserve.search_state import Hypothesis
from seqserve.sequence import Generation, Sequence
from seqserve.target_scoring import TargetScoring

VOCABULARY = 13
MAX_ROWS = 16
TARGETS = [(4,), (5, 6, 7, 8, EOS), (9, 10), (11, 4, 5)]


@dataclasses.dataclass
class Row:
    """What a row of a cache would hold."""

    source: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()


class RowEngine:
    """Keeps of each row which source and which tokens it has seen, and checks what is fed."""

    def __init__(self) -> None:
        self.rows = [Row() for _ in range(MAX_ROWS)]
        self.num_rows: list[int] = []
        """Of each decode step."""

    def run(self, batch: Batch) -> list[Outcome]:
        """Applies the copies and runs the phase."""
        before = [dataclasses.replace(row) for row in self.rows]
        for copy in batch.copies:
            self.rows[copy.target].tokens = before[copy.source].tokens[: copy.target_length]
            if copy.source_length:
                self.rows[copy.target].source = before[copy.source].source
        if batch.phase == "encode":
            for sequence in batch.sequences:
                for row in sequence.rows:
                    self.rows[row] = Row(sequence.source_tokens)
            return [None] * len(batch.sequences)
        self.num_rows.append(batch.num_rows)
        logits = np.zeros((batch.num_rows, VOCABULARY), np.float32)
        for sequence in batch.sequences:
            self._feed(sequence, logits)
        searches = [(sequence.search, sequence.rows) for sequence in batch.sequences]
        return list(choose(searches, logits))  # type: ignore[arg-type]

    def _feed(self, sequence: Sequence, logits: NDArray[np.float32]) -> None:
        search = sequence.search
        assert search is not None
        inputs = zip(sequence.rows, search.next_inputs(), search.targets(), strict=True)
        for row, token, target in inputs:
            held = self.rows[row]
            held.tokens = (*held.tokens[: len(target)], token)
            assert held.source == sequence.source_tokens
            assert held.tokens == (START, *target)
            logits[row] = logits_after(held)


def logits_after(row: Row) -> NDArray[np.float32]:
    """A toy model: random logits [V] that are always the same behind the same tokens."""
    seed = [len(row.source), *row.source, *row.tokens]
    return np.random.default_rng(seed).normal(0.0, 2.0, VOCABULARY).astype(np.float32)


def make_scoring(source: tuple[int, ...]) -> Sequence:
    """A sequence whose targets are given."""
    sequence = make_sequence(source)
    sequence.search = TargetScoring(TARGETS, START, EOS)
    return sequence


def make_generation(source: tuple[int, ...], **options: Any) -> Sequence:
    """A sequence to generate from, with all the scores there are."""
    scores: dict[str, Any] = {"return_scores": True, "return_token_log_probabilities": True}
    return make_sequence(source, **scores, **options)


def run(sequences: list[Sequence], engine: RowEngine) -> list[list[Hypothesis]]:
    """Runs sequences next to each other to their ends."""
    scheduler = Scheduler("encode", SchedulerLimits(max_batch_size=MAX_ROWS, max_batch_tokens=1024))
    answers: dict[Sequence, list[Hypothesis]] = {}
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.has_work:
        batch = scheduler.next_batch(0.0)
        assert batch is not None
        for event in scheduler.update(batch, engine.run(batch), 0.0):
            assert isinstance(event.answer, Generation)
            answers[event.sequence] = event.answer.hypotheses
        scheduler.check()
    return [answers[sequence] for sequence in sequences]


def make_all() -> list[Sequence]:
    """Given targets between beams, drawn hypotheses and greedy search."""
    return [
        make_generation((3, 4), max_new_tokens=2, num_beams=3, num_return_sequences=3),
        make_scoring((5, 6, 7)),
        make_generation((8,), max_new_tokens=7, do_sample=True, num_return_sequences=3, seed=3),
        make_generation((9, 3), max_new_tokens=6, num_beams=2, suppressed_tokens=(EOS,)),
        make_scoring((4, 4, 4, 4)),
    ]


def test_given_targets_shrink_beside_others_who_keep_their_past() -> None:
    """Rows become fewer as targets end, are laid out again, and all answers are those alone."""
    engine = RowEngine()
    together = run(make_all(), engine)
    assert together == [run([sequence], RowEngine())[0] for sequence in make_all()]
    assert [one.tokens for one in together[1]] == TARGETS
    assert engine.num_rows[0] == MAX_ROWS
    assert engine.num_rows == sorted(engine.num_rows, reverse=True)
    assert len(set(engine.num_rows)) > 4


def test_rows_that_given_targets_leave_are_taken_by_others() -> None:
    """A sequence that waits for rows starts as soon as targets have ended, before their last."""
    engine = RowEngine()
    first, second = make_scoring((5, 6)), make_generation((7,), num_beams=MAX_ROWS - 3)
    found = run([first, second], engine)
    assert found == [run([one], RowEngine())[0] for one in (make_scoring((5, 6)), second_again())]
    # The first target ends with the first step: three rows are left to the others.
    assert engine.num_rows[:2] == [4, MAX_ROWS]


def second_again() -> Sequence:
    """The wide one of the test above."""
    return make_generation((7,), num_beams=MAX_ROWS - 3)


def test_scoring_that_is_abandoned_gives_its_rows_back() -> None:
    """In the middle, with some of its targets ended."""
    scheduler = Scheduler("encode", SchedulerLimits(max_batch_size=MAX_ROWS, max_batch_tokens=1024))
    engine, scoring = RowEngine(), make_scoring((5, 6))
    other = make_generation((7,), max_new_tokens=9, suppressed_tokens=(EOS,))
    scheduler.add(scoring)
    scheduler.add(other)
    for _ in range(3):
        batch = scheduler.next_batch(0.0)
        assert batch is not None
        scheduler.update(batch, engine.run(batch), 0.0)
    assert (scoring.num_rows, scheduler.num_live_rows) == (2, 3)
    assert isinstance(scoring.future, FakePromise)
    scoring.future.is_done = True
    assert scheduler.drop(0.0) == []
    while scheduler.has_work:
        batch = scheduler.next_batch(0.0)
        assert batch is not None
        assert batch.num_rows == 1
        scheduler.update(batch, engine.run(batch), 0.0)
        scheduler.check()


@pytest.mark.parametrize("rules", [{}, {"no_repeat_ngram_size": 1}, {"repetition_penalty": 2.0}])
def test_tops_of_beams_hold_suppressed_tokens(rules: dict[str, Any]) -> None:
    """They are the model's own distribution, in which nothing is suppressed; what is taken is not.

    Beams strike out suppressed tokens where the logits lie, which tops must not see.
    """
    source = (3, 5)
    first = logits_after(Row(source, (START,)))
    suppressed = tuple(int(token) for token in np.argsort(-first)[:2])
    options = {"num_beams": 3, "num_return_sequences": 3, "suppressed_tokens": suppressed, **rules}
    (plain,) = run([make_generation(source, max_new_tokens=4, **options)], RowEngine())
    sequence = make_generation(source, max_new_tokens=4, top_log_probability_count=4, **options)
    (found,) = run([sequence], RowEngine())
    assert [dataclasses.replace(one, tops=()) for one in found] == plain
    for one in found:
        assert not set(one.tokens) & set(suppressed)
        assert [token.token for token in one.tops[0][:2]] == list(suppressed)
        for place, top in enumerate(one.tops):
            logits = logits_after(Row(source, (START, *one.tokens[:place])))
            best = np.argsort(-logits)[:4]
            assert [token.token for token in top] == best.tolist()
            exact = (logits[best] - np.float32(log_sum_exp(logits))).tolist()
            assert [token.log_probability for token in top] == exact


def test_tops_change_nothing_of_neighbours() -> None:
    """Only those who ask pay, and get them."""
    options = GenerateOptions(max_new_tokens=3, num_beams=2, suppressed_tokens=(4, 5))
    asking = dataclasses.replace(options, top_log_probability_count=2)
    logits = np.stack([logits_after(Row((9,), (row % 2,))) for row in range(4)])
    searches = [
        make_search(one, decoder_start_token_id=START, eos_token_id=EOS)
        for one in (options, asking)
    ]
    plain, topped = choose([(searches[0], [0, 1]), (searches[1], [2, 3])], logits)
    assert isinstance(plain, list)
    assert isinstance(topped, list)
    assert [candidate._replace(top=()) for candidate in topped] == plain
    assert all(candidate.top for candidate in topped)
    assert not any(candidate.top for candidate in plain)
