"""The search: token choice, and what all kinds of search have in common."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from fakes import EOS, START
from seqserve.choice import choose
from seqserve.errors import EngineError
from seqserve.search_state import Candidate, FinishReason
from toy_search import VOCABULARY, Run, normalized, run_alone, search_for, table


def test_greedy_takes_the_most_probable_token_until_eos() -> None:
    """Every token is the argmax of what follows the ones before it, and eos is the last."""
    num_ended = 0
    for seed in range(40):
        (found,) = run_alone(seed, search_for(1, max_new_tokens=8))
        history: tuple[int, ...] = (START,)
        for token in found.tokens:
            assert token == int(table(seed, history).argmax())
            history += (token,)
        assert EOS not in found.tokens[:-1]
        assert (found.finish_reason is FinishReason.EOS) == (found.tokens[-1] == EOS)
        assert found.finish_reason is FinishReason.EOS or len(found.tokens) == 8
        num_ended += found.finish_reason is FinishReason.EOS
    assert 0 < num_ended < 40


def test_greedy_without_scores_reports_none() -> None:
    """Nothing is normalised and no number invented when nobody asked for scores."""
    (found,) = run_alone(1, search_for(1))
    assert (found.score, found.log_probabilities) == (None, None)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_scores_follow_from_token_log_probabilities(num_beams: int) -> None:
    """Log-probabilities are those of the model; the score is their sum over length to the power."""
    options = {"return_scores": True, "return_token_log_probabilities": True}
    if num_beams > 1:
        options |= {"length_penalty": 0.6, "num_return_sequences": 3}  # type: ignore[dict-item]
    for seed in range(10):
        for found in run_alone(seed, search_for(num_beams, **options)):
            history: tuple[int, ...] = (START,)
            expected = []
            for token in found.tokens:
                expected.append(normalized(seed, history)[token])
                history += (token,)
            penalty = len(expected) ** 0.6 if num_beams > 1 else 1.0
            assert found.log_probabilities == pytest.approx(expected, abs=1e-5)
            assert found.score == pytest.approx(sum(expected) / penalty, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 3}])
def test_own_beginning_as_a_prefix_is_continued_alike(options: dict[str, Any]) -> None:
    """Greedy and drawn targets: the rest is the same, and log-probabilities cover only the rest."""
    values = options | {"return_token_log_probabilities": True, "return_scores": True}
    for seed in range(20):
        (whole,) = run_alone(seed, search_for(1, 7, **values))
        for length in range(1, len(whole.tokens)):
            prefix = whole.tokens[:length]
            search = search_for(1, 7 - length, target_prefix=prefix, **values)
            (found,) = run_alone(seed, search)
            assert (found.tokens, found.finish_reason) == (whole.tokens, whole.finish_reason)
            assert whole.log_probabilities is not None
            assert found.log_probabilities == whole.log_probabilities[length:]
            assert found.score == pytest.approx(sum(found.log_probabilities), abs=1e-5)
            assert search.decided_tokens() == list(whole.tokens)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_prefix_is_decided_as_a_whole(num_beams: int) -> None:
    """Nothing is streamed before its last token, then all of it at once."""
    search = search_for(num_beams, 4, target_prefix=(7, 5, 3))
    run = Run(2, search)
    decided = []
    while not search.is_finished:
        rows = list(range(num_beams))
        run.advance(choose([(search, rows)], np.stack(run.logits()))[0])
        decided.append(list(search.decided_tokens()))
    assert decided[:2] == [[], []]
    assert decided[2][:3] == [7, 5, 3]


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 1},
        {"num_beams": 1, "do_sample": True, "num_return_sequences": 2},
        {"num_beams": 1, "repetition_penalty": 3.0, "suppressed_tokens": (EOS,)},
        {"num_beams": 3, "num_return_sequences": 3},
        {"num_beams": 3, "repetition_penalty": 3.0},
    ],
)
@pytest.mark.parametrize("prefix", [(), (4, 5)])
def test_top_tokens_are_those_of_the_model(
    options: dict[str, Any], prefix: tuple[int, ...]
) -> None:
    """In place of each token behind the prefix, whatever the rules say; and they change nothing."""
    for seed in range(5):
        plain = run_alone(seed, search_for(target_prefix=prefix, **options))
        found = run_alone(
            seed, search_for(target_prefix=prefix, top_log_probability_count=4, **options)
        )
        assert [item.tokens for item in found] == [item.tokens for item in plain]
        for item in found:
            assert len(item.tops) == len(item.tokens) - len(prefix)
            for place, top in enumerate(item.tops, len(prefix)):
                exact = np.array(normalized(seed, (START, *item.tokens[:place])))
                assert [one.token for one in top] == np.argsort(-exact)[:4].tolist()
                values = [one.log_probability for one in top]
                assert values == pytest.approx(exact[[one.token for one in top]].tolist(), abs=1e-5)


def test_decided_tokens_only_grow_into_the_answer() -> None:
    """What was streamed is never taken back: it is a prefix of what follows, and of the answer."""
    num_early = 0
    for seed, num_beams in itertools.product(range(25), [1, 2, 4]):
        search = search_for(num_beams, max_new_tokens=8)
        run = Run(seed, search)
        decided: list[list[int]] = [[]]
        while not search.is_finished:
            logits = np.stack(run.logits())
            run.advance(choose([(search, list(range(num_beams)))], logits)[0])
            decided.append(list(search.decided_tokens()))
        final = list(search.hypotheses()[0].tokens)
        assert decided[-1] == final
        for earlier, later in itertools.pairwise(decided):
            assert later[: len(earlier)] == earlier
        num_early += num_beams > 1 and any(map(len, decided[:-1]))
    assert num_early > 0


@pytest.mark.parametrize("num_return", [1, 2, 3])
def test_as_many_hypotheses_as_asked_for_best_first(num_return: int) -> None:
    """``num_return_sequences`` cuts the list of the best, and changes nothing else."""
    everything = run_alone(7, search_for(4, num_return_sequences=4))
    scores = [item.score for item in everything]
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))
    found = run_alone(7, search_for(4, num_return_sequences=num_return))
    assert found == everything[:num_return]


@pytest.mark.parametrize("num_beams", [2, 3, 4])
@pytest.mark.parametrize("vocabulary", [9, 37, 1000])
def test_ties_go_to_the_lower_index(num_beams: int, vocabulary: int) -> None:
    """Of equal candidates the lower beam, then the lower token comes first, at the cut too."""
    search = search_for(num_beams)
    (candidates,) = choose(
        [(search, list(range(num_beams)))], np.zeros((num_beams, vocabulary), np.float32)
    )
    assert isinstance(candidates, list)
    assert [(item.parent, item.token) for item in candidates] == [
        (0, token) for token in range(2 * num_beams)
    ]


def test_greedy_tie_goes_to_the_lower_token() -> None:
    """Of equally probable tokens the first one is taken."""
    logits = np.array([[0.0, 3.0, 3.0, 1.0]], np.float32)
    assert choose([(search_for(1), [0])], logits) == [[Candidate(0, 1, 0.0, 0.0)]]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_logits_that_are_not_finite_fail_their_sequence_alone(bad: float, num_beams: int) -> None:
    """NaN or infinity in one sequence's rows is its own error; the neighbours go on."""
    searches = [(search_for(1), [0]), (search_for(num_beams), list(range(1, 1 + num_beams)))]
    searches.append((search_for(2), [num_beams + 1, num_beams + 2]))
    logits = np.tile(table(0, (START,)), (num_beams + 3, 1))
    healthy = choose(searches, logits)
    logits[1, 4] = bad
    outcomes = choose(searches, logits)
    assert [outcomes[0], outcomes[2]] == [healthy[0], healthy[2]]
    assert repr(outcomes[1]) == "NonFiniteError('the model returned logits that are not finite')"


@pytest.mark.parametrize("num_beams", [1, 3])
def test_row_of_minus_infinity_fails(num_beams: int) -> None:
    """A model that excludes every token has no answer."""
    logits = np.full((num_beams, VOCABULARY), -np.inf, np.float32)
    (outcome,) = choose([(search_for(num_beams), list(range(num_beams)))], logits)
    assert isinstance(outcome, EngineError)


def test_excluded_tokens_are_never_taken() -> None:
    """Minus infinity for single tokens is no fault: it only rules them out."""
    logits = np.tile(np.arange(20, dtype=np.float32), (2, 1))
    logits[:, 19] = -np.inf
    outcomes = choose([(search_for(2), [0, 1]), (search_for(1), [0])], logits)
    tokens = [[item.token for item in outcome] for outcome in outcomes if isinstance(outcome, list)]
    assert tokens == [[18, 17, 16, 15], [18]]


@pytest.mark.parametrize("seed", range(6))
def test_result_depends_neither_on_neighbours_nor_on_rows(seed: int) -> None:
    """Among other searches, in shuffled rows, each finds bit for bit what it finds alone."""
    generator = np.random.default_rng(seed)
    widths = [1, 4, 1, 2, 3]
    options = {"return_scores": True, "return_token_log_probabilities": True}
    alone = [run_alone(index, search_for(width, **options)) for index, width in enumerate(widths)]
    runs = [Run(index, search_for(width, **options)) for index, width in enumerate(widths)]
    while active := [run for run in runs if not run.search.is_finished]:
        free = iter(generator.permutation(sum(run.search.num_rows for run in active)).tolist())
        rows = [list(itertools.islice(free, run.search.num_rows)) for run in active]
        logits = np.empty((sum(map(len, rows)), VOCABULARY), np.float32)
        for run, own in zip(active, rows, strict=True):
            logits[own] = np.stack(run.logits())
        searches = [(run.search, own) for run, own in zip(active, rows, strict=True)]
        for run, outcome in zip(active, choose(searches, logits), strict=True):
            run.advance(outcome)
    assert [run.search.hypotheses() for run in runs] == alone
