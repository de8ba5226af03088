"""Given targets: fed in order, scored by the model's own distribution, rows given back."""

from typing import Any

import numpy as np
import pytest

from fakes import EOS, START
from seqserve.choice import choose
from seqserve.errors import EngineError
from seqserve.generate_options import GenerateOptions
from seqserve.ranking import log_sum_exp
from seqserve.search import make_search
from seqserve.search_state import FinishReason
from seqserve.target_scoring import TargetScoring

VOCABULARY = 11
TARGETS = [(4, 5, EOS), (6,), (7, 4, 5, 8)]


def make_scoring() -> TargetScoring:
    """Three targets of different lengths."""
    return TargetScoring(TARGETS, START, EOS)


def logits_of(step: int, num_rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Random logits [B, V] that are the same for every row of a step."""
    row = np.random.default_rng(step).normal(0.0, 3.0, VOCABULARY).astype(np.float32)
    return np.tile(row, (num_rows, 1))


class Unsearched(np.ndarray[Any, np.dtype[np.float32]]):
    """Logits of many rows in which nobody looks for the best tokens."""

    def argmax(self, *arguments: Any, **options: Any) -> Any:
        """Is a mistake, unless of one row."""
        assert self.ndim == 1, "searched all rows for their best tokens"
        return super().argmax(*arguments, **options)


def test_best_tokens_are_not_searched_for_targets_or_beams() -> None:
    """A step of them alone does not pay for greedy search."""
    beams = make_search(
        GenerateOptions(max_new_tokens=4, num_beams=2),
        decoder_start_token_id=START,
        eos_token_id=EOS,
    )
    plain = logits_of(0, 5)
    searches = [(make_scoring(), [0, 1, 2]), (beams, [3, 4])]
    assert choose(searches, plain.copy().view(Unsearched)) == choose(searches, plain)


def test_targets_are_fed_longest_first_and_give_their_rows_back() -> None:
    """At any time the rows of those that go on are the first ones."""
    scoring = make_scoring()
    seen = []
    for step in range(4):
        seen.append((scoring.next_inputs(), scoring.next_tokens(), scoring.target_length))
        num_rows = scoring.num_rows
        (outcome,) = choose([(scoring, list(range(num_rows)))], logits_of(step, num_rows))
        assert isinstance(outcome, list)
        parents = scoring.advance(outcome)
        assert parents == list(range(scoring.num_rows))
    assert seen == [
        ([START] * 3, [7, 4, 6], 0),
        ([7, 4], [4, 5], 1),
        ([4, 5], [5, EOS], 2),
        ([5], [8], 3),
    ]
    assert scoring.is_finished
    assert (scoring.num_rows, scoring.decided_tokens()) == (0, [])


def test_scores_are_log_softmax_of_the_given_tokens_in_the_given_order() -> None:
    """Token by token, and their sum; targets without the end token are told from others."""
    scoring = make_scoring()
    while not scoring.is_finished:
        rows = list(range(scoring.num_rows))
        (outcome,) = choose([(scoring, rows)], logits_of(scoring.target_length, len(rows)))
        assert isinstance(outcome, list)
        scoring.advance(outcome)
    found = scoring.hypotheses()
    assert [one.tokens for one in found] == TARGETS
    for one in found:
        expected = [
            float(row[token] - np.float32(log_sum_exp(row)))
            for step, token in enumerate(one.tokens)
            for row in logits_of(step, 1)
        ]
        assert one.log_probabilities == tuple(expected)
        assert one.score == sum(expected)
    assert [one.finish_reason for one in found] == [
        FinishReason.EOS,
        FinishReason.LENGTH,
        FinishReason.LENGTH,
    ]


def test_neighbours_in_a_step_change_nothing() -> None:
    """One beside greedy and beam searches gets the candidates it gets alone."""
    logits = np.random.default_rng(5).normal(0.0, 2.0, (7, VOCABULARY)).astype(np.float32)
    scoring = make_scoring()
    (alone,) = choose([(scoring, [0, 1, 2])], logits[2:5])
    others = [
        make_search(
            GenerateOptions(max_new_tokens=4, num_beams=num_beams),
            decoder_start_token_id=START,
            eos_token_id=EOS,
        )
        for num_beams in (2, 1)
    ]
    outcomes = choose([(others[0], [0, 1]), (scoring, [2, 3, 4]), (others[1], [6])], logits)
    assert outcomes[1] == alone
    assert scoring.targets() == [[], [], []]
    assert scoring.scores == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_a_fault(value: float) -> None:
    """Of this sequence alone."""
    logits = np.zeros((2, VOCABULARY), np.float32)
    logits[1, 9] = value
    scoring, other = TargetScoring([(4,)], START, EOS), TargetScoring([(4,)], START, EOS)
    good, bad = choose([(scoring, [0]), (other, [1])], logits)
    assert isinstance(good, list)
    assert isinstance(bad, EngineError)
