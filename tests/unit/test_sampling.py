"""Sampling without a model: the numbers, the tokens they pick, and how often each comes."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes import EOS, START
from seqserve.choice import choose
from seqserve.generate_options import GenerateOptions
from seqserve.sampling import draw_number, draw_token
from seqserve.search import make_search
from seqserve.search_state import Hypothesis, SearchState

GOLDEN = [0.3035680343067586, 0.9002684531124185, 0.4082618259872465]
"""The first numbers of seed 1."""

LOGITS = np.array([0.5, -1.0, 2.0, 0.0, 1.5, -3.0], np.float32)


def options(**values: Any) -> GenerateOptions:
    """Options to sample with."""
    return GenerateOptions(max_new_tokens=8, do_sample=True, **values)


def picked(scores: NDArray[np.float32], **values: Any) -> dict[int, float]:
    """Which part of [0, 1) picks each token, measured on a grid of 4,000 numbers."""
    numbers = (np.arange(4000) + 0.5) / 4000
    tokens = [draw_token(scores, options(**values), float(number)) for number in numbers]
    return {token: tokens.count(token) / 4000 for token in dict.fromkeys(tokens)}


def softmax(scores: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities [V] in float64."""
    weights = np.exp((scores.astype(np.float64) - scores.max()) / temperature)
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


def test_numbers_stay_what_they_are() -> None:
    """A seed means the same in every process and every version of the server."""
    assert [draw_number(1, 0, position) for position in range(3)] == GOLDEN
    assert draw_number(2**63 - 1, 63, 4096) == draw_number(2**63 - 1, 63, 4096)


@given(st.integers(0, 2**63 - 1), st.integers(0, 63), st.integers(0, 5000))
def test_numbers_lie_below_one(seed: int, index: int, position: int) -> None:
    """Zero may come, one may not."""
    assert 0.0 <= draw_number(seed, index, position) < 1.0


def test_seed_hypothesis_and_position_each_change_the_number() -> None:
    """No two of 8,000 draws are related."""
    keys = itertools.product(range(20), range(20), range(20))
    numbers = [draw_number(*key) for key in keys]
    assert len(set(numbers)) == 8000
    # The mean of n uniform numbers is off by 6 standard errors with odds of 2e-9.
    assert abs(np.mean(numbers) - 0.5) < 6 / math.sqrt(12 * 8000)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_every_token_gets_its_probability(temperature: float) -> None:
    """Best first; the grid is off by at most one number at each end of an interval."""
    shares = picked(LOGITS, temperature=temperature)
    expected = softmax(LOGITS, temperature)
    assert list(shares) == np.argsort(-LOGITS)[: len(shares)].tolist()
    for token in range(6):
        assert shares.get(token, 0.0) == pytest.approx(expected[token], abs=1 / 4000)


@pytest.mark.parametrize("temperature", [1e-320, 1e-30])
def test_lowest_temperatures_take_the_best(temperature: float) -> None:
    """Quotients beyond the range of floats are no fault."""
    assert picked(LOGITS, temperature=temperature) == {2: 1.0}


def test_highest_temperature_makes_all_equal() -> None:
    """No token is forgotten."""
    assert picked(LOGITS, temperature=1e300).values() == pytest.approx([1 / 6] * 6, abs=1e-3)


def test_top_k_keeps_the_best_and_their_equals() -> None:
    """Tokens as good as the last of the k stay, too."""
    assert set(picked(LOGITS, top_k=2)) == {2, 4}
    assert set(picked(np.array([1, 3, 1, 2, 0], np.float32), top_k=3)) == {1, 3, 0, 2}
    assert set(picked(LOGITS, top_k=1)) == {2}
    assert picked(LOGITS, top_k=6) == picked(LOGITS, top_k=99) == picked(LOGITS)


def test_top_p_keeps_the_token_that_reaches_it() -> None:
    """Of probabilities 0.5, 0.3, 0.2: one up to 0.5, two up to 0.8, then all."""
    scores = np.log(np.array([0.3, 0.5, 0.2])).astype(np.float32)
    kept = [set(picked(scores, top_p=top_p)) for top_p in (1e-300, 0.49, 0.51, 0.79, 0.81, 1.0)]
    assert kept == [{1}, {1}, {1, 0}, {1, 0}, {1, 0, 2}, {1, 0, 2}]
    shares = picked(scores, top_p=0.6)
    assert shares == {1: pytest.approx(0.625, abs=1e-3), 0: pytest.approx(0.375, abs=1e-3)}


def test_top_p_counts_what_top_k_left() -> None:
    """Of probabilities 0.4, 0.4, 0.2, two tokens left have 0.5 each."""
    scores = np.log(np.array([0.4, 0.39, 0.21])).astype(np.float32)
    assert set(picked(scores, top_p=0.5)) == {0, 1}
    assert set(picked(scores, top_p=0.5, top_k=2)) == {0}


@pytest.mark.parametrize("values", [{}, {"top_p": 0.9}, {"top_k": 700}, {"top_k": 5}])
def test_looking_at_few_tokens_first_changes_nothing(values: dict[str, Any]) -> None:
    """Large flat vocabularies, whose draws are often not among the first, are sorted whole."""
    scores = np.random.default_rng(3).normal(0, 0.3, 2000).astype(np.float32).round(2)
    order = np.argsort(-scores, kind="stable")
    weights = softmax(scores)[order]
    if "top_k" in values:
        weights = np.where(scores[order] < scores[order][values["top_k"] - 1], 0.0, weights)
    if "top_p" in values:
        before = np.cumsum(weights) - weights
        weights = np.where(before >= values["top_p"], 0.0, weights)
    sums = np.cumsum(weights / weights.sum())
    for number in np.random.default_rng(4).random(300):
        expected = order[np.searchsorted(sums, number, side="right")]
        assert draw_token(scores, options(**values), float(number)) == expected


def test_zeros_of_either_sign_are_equal() -> None:
    """Of equals the lower token comes first, whatever the sign of its zero."""
    scores = np.array([-0.0, 0.0, -0.0, -1.0, 1.0, -np.inf], np.float32)
    assert list(picked(scores)) == [4, 0, 1, 2, 3]


def test_barred_tokens_are_never_drawn() -> None:
    """Not even by the largest number there is."""
    scores = np.array([-np.inf, 0.0, -np.inf, 0.0], np.float32)
    for values in ({}, {"top_k": 3}, {"top_p": 0.99}):
        assert draw_token(scores, options(**values), 0.0) == 1
        assert draw_token(scores, options(**values), 1 - 2**-53) == 3


def drawn(search: SearchState, logits: NDArray[np.float32] = LOGITS) -> list[Hypothesis]:
    """Decodes with a model that always says the same."""
    while not search.is_finished:
        rows = list(range(search.num_rows))
        (outcome,) = choose([(search, rows)], np.tile(logits, (len(rows), 1)))
        assert isinstance(outcome, list)
        search.advance(outcome)
    return search.hypotheses()


def search_for(**values: Any) -> SearchState:
    """A search that samples."""
    return make_search(options(**values), decoder_start_token_id=START, eos_token_id=EOS)


def test_frequencies_are_the_probabilities() -> None:
    """A chi-squared statistic of 20,000 draws with 5 degrees of freedom.

    It exceeds 50.7 with odds of 1e-9 if the draws are right.
    """
    counts = np.zeros(6)
    for seed in range(20_000):
        counts[draw_token(LOGITS, options(), draw_number(seed, 0, 0))] += 1
    expected = 20_000 * softmax(LOGITS)
    assert ((counts - expected) ** 2 / expected).sum() < 50.7


def test_hypotheses_are_drawn_independently() -> None:
    """They differ, end at their own lengths, and the first is the one that comes alone."""
    lengths = set()
    for seed in range(10):
        together = drawn(search_for(seed=seed, num_return_sequences=4))
        assert together[:1] == drawn(search_for(seed=seed))
        assert together[:2] == drawn(search_for(seed=seed, num_return_sequences=2))
        assert len({hypothesis.tokens for hypothesis in together}) > 1
        lengths |= {len(hypothesis.tokens) for hypothesis in together}
        for hypothesis in together:
            assert (hypothesis.tokens[-1] == EOS) == (hypothesis.finish_reason == "eos")
    assert len(lengths) > 4


def test_rows_of_ended_hypotheses_are_given_back() -> None:
    """The search goes on with those that live, each in the row of its own past."""
    search = search_for(seed=5, num_return_sequences=4)
    held = [0, 1, 2, 3]
    shrunk = False
    while not search.is_finished:
        assert search.hypothesis_indices == held
        assert len(search.next_inputs()) == len(search.targets()) == search.num_rows == len(held)
        rows = list(range(search.num_rows))
        (outcome,) = choose([(search, rows)], np.tile(LOGITS, (len(rows), 1)))
        assert isinstance(outcome, list)
        parents = search.advance(outcome)
        shrunk = shrunk or 0 < len(parents) < len(held)
        held = [held[parent] for parent in parents]
    assert shrunk


def test_log_probabilities_are_those_of_the_model() -> None:
    """Temperature and filters change what is drawn, not what it scores."""
    (found,) = drawn(
        search_for(
            seed=1,
            temperature=3.0,
            top_k=4,
            repetition_penalty=1.5,
            return_scores=True,
            return_token_log_probabilities=True,
        )
    )
    expected = np.log(softmax(LOGITS))[list(found.tokens)]
    assert found.log_probabilities == pytest.approx(expected, abs=1e-6)
    assert found.score == pytest.approx(expected.sum(), abs=1e-5)


def test_rules_come_before_sampling() -> None:
    """What is barred is not drawn, what is forced is not drawn for."""
    for seed in range(30):
        (found,) = drawn(
            search_for(
                seed=seed,
                min_new_tokens=8,
                no_repeat_ngram_size=2,
                suppressed_tokens=(0,),
                forced_bos_token_id=5,
            )
        )
        assert (found.tokens[0], len(found.tokens)) == (5, 8)
        assert not {0, EOS} & set(found.tokens)
        bigrams = list(itertools.pairwise(found.tokens))
        assert len(set(bigrams)) == len(bigrams)


def test_streams_send_the_first_hypothesis() -> None:
    """Its tokens, one by one, also when others live longer."""
    search = search_for(seed=2, num_return_sequences=3)
    lengths = []
    while not search.is_finished:
        rows = list(range(search.num_rows))
        (outcome,) = choose([(search, rows)], np.tile(LOGITS, (len(rows), 1)))
        assert isinstance(outcome, list)
        search.advance(outcome)
        lengths.append(len(search.decided_tokens()))
    first = search.hypotheses()[0]
    assert search.decided_tokens() == list(first.tokens)
    assert lengths == [min(step + 1, len(first.tokens)) for step in range(len(lengths))]
