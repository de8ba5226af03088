"""The search: token choice, greedy and beam search against a naive reference."""

import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import EOS, START
from seqserve.choice import choose
from seqserve.errors import EngineError
from seqserve.search import make_search
from seqserve.sequence import (
    Candidate,
    FinishReason,
    GenerateOptions,
    Hypothesis,
    Outcome,
    SearchState,
)

VOCABULARY = 9


@functools.cache
def table(seed: int, history: tuple[int, ...]) -> NDArray[np.float32]:
    """A toy model: the logits [V] that follow a history, random but always the same."""
    generator = np.random.default_rng([seed, *history])
    logits = generator.normal(0.0, 1.5, VOCABULARY).astype(np.float32)
    logits[EOS] += 0.7
    return logits


def search_for(num_beams: int, max_new_tokens: int = 6, **options: Any) -> SearchState:
    """A search with the given options."""
    return make_search(
        GenerateOptions(max_new_tokens=max_new_tokens, num_beams=num_beams, **options),
        decoder_start_token_id=START,
        eos_token_id=EOS,
    )


class Run:
    """One search on the toy model, with the histories of its hypotheses kept outside of it."""

    def __init__(self, seed: int, search: SearchState) -> None:
        self.search = search
        self._seed = seed
        self._histories: list[tuple[int, ...]] = [()] * search.num_rows

    def logits(self) -> list[NDArray[np.float32]]:
        """What the toy model says after each live hypothesis, [K] rows of [V]."""
        histories = [
            (*history, token)
            for history, token in zip(self._histories, self.search.next_inputs(), strict=True)
        ]
        self._histories = histories
        return [table(self._seed, history) for history in histories]

    def advance(self, outcome: Outcome) -> None:
        """Takes the chosen candidates."""
        assert isinstance(outcome, list)
        parents = self.search.advance(outcome)
        self._histories = [self._histories[parent] for parent in parents]


def run_alone(seed: int, search: SearchState) -> list[Hypothesis]:
    """Runs a search to its end, nothing else in the batch."""
    run = Run(seed, search)
    while not search.is_finished:
        logits = np.stack(run.logits())
        run.advance(choose([(search, list(range(search.num_rows)))], logits)[0])
    return search.hypotheses()


def normalized(seed: int, history: tuple[int, ...]) -> list[float]:
    """Log-probabilities [V] after a history, in float64."""
    logits = table(seed, history).astype(np.float64)
    values: list[float] = (logits - np.log(np.exp(logits).sum())).tolist()
    return values


def beam_reference(
    seed: int,
    num_beams: int,
    limit: int,
    length_penalty: float,
    early_stopping: bool,
    prefix: tuple[int, ...] = (),
) -> list[tuple[float, tuple[int, ...]]]:
    """Beam search as transformers describes it, written with plain lists and no cache.

    Source: ``GenerationMixin._beam_search`` of transformers 5, for one input.
    """
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, (START, *prefix))]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for length in itertools.count(1):
        continuations = [
            (total + log_probability, (*tokens, token))
            for total, tokens in live
            for token, log_probability in enumerate(normalized(seed, tokens))
        ]
        continuations.sort(key=lambda item: -item[0])
        candidates = continuations[: 2 * num_beams]
        # Only the best K of the 2K may finish; all do at the limit.
        for total, tokens in candidates[:num_beams]:
            if tokens[-1] == EOS or length == limit:
                finished.append((total / length**length_penalty, tokens[1:]))
        finished = sorted(finished, key=lambda item: -item[0])[:num_beams]
        live = [item for item in candidates if item[1][-1] != EOS][:num_beams]
        if length == limit:
            return finished
        if len(finished) == num_beams:
            best_possible = live[0][0] / length**length_penalty
            if early_stopping or best_possible <= finished[-1][0]:
                return finished
    raise AssertionError("unreachable")


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


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("num_beams", [2, 3, 4, 5])
def test_beam_search_is_the_reference(
    num_beams: int, length_penalty: float, early_stopping: bool
) -> None:
    """Hypotheses, their order and their scores are those of a naive beam search."""
    for seed in range(12):
        limit = 1 + seed % 7
        found = run_alone(
            seed,
            search_for(
                num_beams,
                limit,
                num_return_sequences=num_beams,
                length_penalty=length_penalty,
                early_stopping=early_stopping,
            ),
        )
        expected = beam_reference(seed, num_beams, limit, length_penalty, early_stopping)
        assert [item.tokens for item in found] == [tokens for _, tokens in expected]
        scores = [score for score, _ in expected]
        assert [item.score for item in found] == pytest.approx(scores, abs=1e-4)
        for item in found:
            assert (item.finish_reason is FinishReason.EOS) == (item.tokens[-1] == EOS)


PREFIXES = [(4,), (3, 3), (7, 5, 3, 8)]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("num_beams", [2, 4])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_beams_behind_a_prefix_are_the_reference(
    prefix: tuple[int, ...], num_beams: int, early_stopping: bool
) -> None:
    """Scores, lengths and limits are those of the tokens behind it."""
    for seed in range(12):
        limit = 1 + seed % 5
        options: dict[str, Any] = {
            "num_return_sequences": num_beams,
            "length_penalty": 0.6,
            "early_stopping": early_stopping,
            "target_prefix": prefix,
            "return_token_log_probabilities": True,
        }
        found = run_alone(seed, search_for(num_beams, limit, **options))
        expected = beam_reference(seed, num_beams, limit, 0.6, early_stopping, prefix)
        assert [item.tokens for item in found] == [tokens for _, tokens in expected]
        assert [item.score for item in found] == pytest.approx(
            [score for score, _ in expected], abs=1e-4
        )
        for item in found:
            assert item.num_prefix_tokens == len(prefix)
            assert item.log_probabilities is not None
            length = len(item.tokens) - len(prefix)
            assert len(item.log_probabilities) == length
            total = sum(item.log_probabilities) / length**0.6
            assert item.score == pytest.approx(total, abs=1e-4)


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


@pytest.mark.parametrize("prefix", [(), (4,), (7, 5, 3)])
def test_alternatives_begin_with_the_best_tokens_and_go_on_greedily(
    prefix: tuple[int, ...],
) -> None:
    """Ranked by their first token; each is what greedy search makes of that token."""
    for seed in range(10):
        values: dict[str, Any] = {"return_scores": True, "target_prefix": prefix}
        found = run_alone(
            seed, search_for(1, return_alternatives=True, num_return_sequences=4, **values)
        )
        firsts = np.argsort(-table(seed, (START, *prefix)))[:4].tolist()
        assert [item.tokens[len(prefix)] for item in found] == firsts
        assert found[0] == run_alone(seed, search_for(1, **values))[0]
        for item, first in zip(found, firsts, strict=True):
            if first == EOS:
                assert item.tokens == (*prefix, EOS)
                continue
            longer = search_for(1, 5, target_prefix=(*prefix, first), return_scores=True)
            (expected,) = run_alone(seed, longer)
            assert item.tokens == expected.tokens
            first_score = normalized(seed, (START, *prefix))[first]
            assert item.score == pytest.approx((expected.score or 0.0) + first_score, abs=1e-4)


def test_alternatives_are_as_many_as_there_are() -> None:
    """Barred tokens are none, unlikely ones need not be, and the best one always is."""
    options: dict[str, Any] = {"return_alternatives": True, "num_return_sequences": 5}
    found = run_alone(1, search_for(1, suppressed_tokens=(0, 1, 2, 3, 4, 5, 6), **options))
    assert {item.tokens[0] for item in found} == {7, 8}
    probabilities = np.exp(normalized(1, (START,)))
    for limit in (0.05, 0.2, 1.0):
        found = run_alone(1, search_for(1, min_alternative_probability=limit, **options))
        assert len(found) == max(1, min(5, (probabilities >= limit).sum()))


def test_alternatives_come_behind_forced_tokens() -> None:
    """The first token that is not forced; if all are, there is one hypothesis."""
    options: dict[str, Any] = {
        "return_alternatives": True,
        "num_return_sequences": 3,
        "forced_bos_token_id": 5,
    }
    found = run_alone(1, search_for(1, **options))
    assert [item.tokens[0] for item in found] == [5, 5, 5]
    firsts = np.argsort(-table(1, (START, 5)))[:3].tolist()
    assert [item.tokens[1] for item in found] == firsts
    for limit in (1, 2):
        (only,) = run_alone(1, search_for(1, limit, forced_eos_token_id=EOS, **options))
        assert only.tokens == (5, EOS)[2 - limit :]


def test_wide_beam_finds_the_most_probable_target() -> None:
    """With as many beams as there are targets the search is exhaustive."""
    best = max(
        itertools.product(range(VOCABULARY), repeat=2),
        key=lambda tokens: (
            -math.inf
            if tokens[0] == EOS
            else normalized(3, (START,))[tokens[0]] + normalized(3, (START, tokens[0]))[tokens[1]]
        ),
    )
    ended = normalized(3, (START,))[EOS]
    two = normalized(3, (START,))[best[0]] + normalized(3, (START, best[0]))[best[1]]
    (found,) = run_alone(3, search_for(8, max_new_tokens=2, length_penalty=0.0))
    assert found.tokens == (best if two > ended else (EOS,))


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
    assert repr(outcomes[1]) == "EngineError('the model returned logits that are not finite')"


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


@pytest.mark.parametrize(
    ("length_penalty", "score"),
    [(1e308, 0.0), (2000.0, 0.0), (-1e308, -math.inf), (-2000.0, -math.inf)],
)
def test_extreme_length_penalties_reach_their_limit(length_penalty: float, score: float) -> None:
    """A power beyond the range of floats gives the limit of the score, not a fault."""
    (found,) = run_alone(11, search_for(2, max_new_tokens=3, length_penalty=length_penalty))
    assert found.score == score or len(found.tokens) == 1


def test_beams_begin_as_one() -> None:
    """At the first step only one beam is continued, or all beams would stay equal."""
    search = search_for(3)
    assert search.next_inputs() == [START] * 3
    logits = np.tile(table(5, (START,)), (3, 1))
    (candidates,) = choose([(search, [0, 1, 2])], logits)
    assert isinstance(candidates, list)
    assert {item.parent for item in candidates} == {0}
    search.advance(candidates)
    assert len(set(search.next_inputs())) == 3


def test_beams_that_do_not_exist_yet_are_never_hypotheses() -> None:
    """With one token left to choose from there is one hypothesis, not four of the same."""
    options = GenerateOptions(
        max_new_tokens=1,
        num_beams=4,
        num_return_sequences=4,
        suppressed_tokens=tuple(range(4, 30)),
    )
    search = make_search(options, decoder_start_token_id=START, eos_token_id=EOS)
    logits = np.zeros((4, 30), np.float32)
    (outcome,) = choose([(search, [0, 1, 2, 3])], logits)
    assert isinstance(outcome, list)
    search.advance(outcome)
    found = search.hypotheses()
    assert len({hypothesis.tokens for hypothesis in found}) == len(found)
    assert all(hypothesis.score is not None and hypothesis.score > -10 for hypothesis in found)


def test_stopped_beams_have_a_hypothesis_whatever_their_scores() -> None:
    """However little the model thinks of the only beam there is."""
    options = GenerateOptions(max_new_tokens=9, num_beams=2)
    search = make_search(options, decoder_start_token_id=START, eos_token_id=EOS)
    search.advance([Candidate(0, 7, -1e12, -1e12), Candidate(0, 8, -2e12, -2e12)])
    search.stop(FinishReason.TIME)
    assert [hypothesis.tokens for hypothesis in search.hypotheses()] == [(7,)]
    assert search.decided_tokens() == [7]
