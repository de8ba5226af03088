"""Beam search against a naive reference, and beams at their limits."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from fakes import EOS, START
from seqserve.beam_search import normalize_score
from seqserve.choice import choose
from seqserve.decoding_limit import MAX_LENGTH_PENALTY, MAX_TARGET_LENGTH, MIN_LENGTH_PENALTY
from seqserve.generate_options import GenerateOptions
from seqserve.search import make_search
from seqserve.search_state import Candidate, FinishReason
from toy_search import VOCABULARY, normalized, run_alone, search_for, table


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


@pytest.mark.parametrize("length_penalty", [MIN_LENGTH_PENALTY, MAX_LENGTH_PENALTY])
@pytest.mark.parametrize("length", [1, 2, 500, MAX_TARGET_LENGTH])
@pytest.mark.parametrize("total", [-(2.0**-46), -1.0, -(2.0**47)])
def test_scores_of_every_length_stay_in_range(
    length: int, length_penalty: float, total: float
) -> None:
    """At both ends of what length penalties may be a score is a float32, and a normal one."""
    limits = np.finfo(np.float32)
    score = normalize_score(total, length, length_penalty)
    assert limits.smallest_normal <= -score <= limits.max


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
