"""Rules about single tokens, without a model."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from seqserve.choice import choose
from seqserve.errors import NoTokenLeftError
from seqserve.generate_options import GenerateOptions
from seqserve.rules import TokenRules
from seqserve.search import make_search
from seqserve.search_state import Hypothesis

START, EOS, SIZE = 1, 2, 12


def rules(max_new_tokens: int = 9, **options: Any) -> TokenRules:
    """Rules of options over a vocabulary of 12."""
    return TokenRules(GenerateOptions(max_new_tokens=max_new_tokens, **options), START, EOS)


def applied(target: list[int], **options: Any) -> NDArray[np.float32]:
    """What becomes of the scores -1, -2, ..., -12."""
    scores = -np.arange(1, SIZE + 1, dtype=np.float32)
    rules(**options).apply(scores, target)
    return scores


def barred(target: list[int], **options: Any) -> list[int]:
    """The tokens that are ruled out."""
    return np.flatnonzero(np.isneginf(applied(target, **options))).tolist()


def test_without_options_nothing_is_active() -> None:
    """Plain requests pay nothing, and defaults change no score."""
    assert not rules().is_active
    assert applied([3, 4]).tolist() == (-np.arange(1.0, 13.0)).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"min_new_tokens": 1},
        {"no_repeat_ngram_size": 2},
        {"repetition_penalty": 1.1},
        {"forced_bos_token_id": 0},
        {"forced_eos_token_id": 0},
        {"suppressed_tokens": (0,)},
        {"suppressed_sequences": ((0, 0),)},
    ],
)
def test_each_option_makes_the_rules_active(options: dict[str, Any]) -> None:
    """Token 0 is a token, not nothing."""
    assert rules(**options).is_active


def test_end_token_is_barred_up_to_the_minimum() -> None:
    """With a minimum of 2 it may be the third token, not the second."""
    assert barred([], min_new_tokens=2) == [EOS]
    assert barred([5], min_new_tokens=2) == [EOS]
    assert barred([5, 6], min_new_tokens=2) == []


def test_repeated_ngrams_are_barred() -> None:
    """Bigrams, trigrams, and single tokens; the start token is one of the target's."""
    assert barred([5, 6, 5], no_repeat_ngram_size=2) == [6]
    assert barred([5, START], no_repeat_ngram_size=2) == [5]
    assert barred([5, 6, 7, 5, 6], no_repeat_ngram_size=3) == [7]
    assert barred([5, 6], no_repeat_ngram_size=3) == []
    assert barred([5, 6], no_repeat_ngram_size=1) == [START, 5, 6]


@given(st.lists(st.integers(3, 6), max_size=12), st.integers(1, 4))
def test_obeying_the_bars_repeats_no_ngram(draws: list[int], size: int) -> None:
    """Whatever is drawn among allowed tokens, every n-gram stays unique."""
    target: list[int] = []
    for draw in draws:
        if draw not in rules(no_repeat_ngram_size=size).barred_tokens(target):
            target.append(draw)
    tokens = [START, *target]
    ngrams = [tuple(tokens[index : index + size]) for index in range(len(tokens) - size + 1)]
    assert len(ngrams) == len(set(ngrams))


def test_suppressed_sequences_bar_their_last_token() -> None:
    """Where the others went before, in the prefix or behind it; the start token is none of them."""
    sequences = ((5, 6), (5, 7), (3, 5, 8), (START, 9))
    assert barred([], suppressed_sequences=sequences) == []
    assert barred([5], suppressed_sequences=sequences) == [6, 7]
    assert barred([3, 5], suppressed_sequences=sequences) == [6, 7, 8]
    assert barred([5, 3], suppressed_sequences=sequences) == []
    found = barred([4, 3, 5], target_prefix=(4, 3), suppressed_sequences=sequences)
    assert found == [6, 7, 8]


def test_limits_count_what_comes_behind_the_prefix() -> None:
    """Minimum and maximum; no first token is forced behind a prefix."""
    options: dict[str, Any] = {
        "target_prefix": (5, 6),
        "min_new_tokens": 1,
        "max_new_tokens": 2,
        "forced_bos_token_id": 7,
        "forced_eos_token_id": EOS,
    }
    assert barred([5, 6], **options) == [EOS]
    assert rules(**options).forced_token([5, 6]) is None
    assert rules(**options).forced_token([5, 6, 8]) == EOS


def test_penalty_lowers_what_was_said_whatever_its_sign() -> None:
    """Negative scores are multiplied, positive ones divided, each once."""
    scores = np.array([4.0, -1.0, 3.0, -3.0, 5.0], np.float32)
    rules(repetition_penalty=2.0).apply(scores, [0, 3, 3])
    assert scores.tolist() == [2.0, -2.0, 3.0, -6.0, 5.0]


def test_forced_tokens_leave_no_choice() -> None:
    """The first token, and the last one at the limit, which wins where both are one."""
    first = applied([], forced_bos_token_id=7, min_new_tokens=3)
    assert (first[7], np.isneginf(first).sum()) == (0.0, SIZE - 1)
    options = {"max_new_tokens": 3, "forced_eos_token_id": EOS, "suppressed_tokens": (4,)}
    assert barred([5], **options) == [4]
    last = applied([5, 6], **options)
    assert (last[EOS], np.isneginf(last).sum()) == (0.0, SIZE - 1)
    both = rules(max_new_tokens=1, forced_bos_token_id=7, forced_eos_token_id=EOS)
    assert both.forced_token([]) == EOS


def decode(num_beams: int, logits: list[float], **options: Any) -> list[Hypothesis]:
    """Decodes with a model that always says the same."""
    values = GenerateOptions(num_beams=num_beams, num_return_sequences=num_beams, **options)
    search = make_search(values, decoder_start_token_id=START, eos_token_id=EOS)
    while not search.is_finished:
        rows = np.tile(np.array(logits, np.float32), (num_beams, 1))
        (outcome,) = choose([(search, list(range(num_beams)))], rows)
        if isinstance(outcome, Exception):
            raise outcome
        search.advance(outcome)
    return search.hypotheses()


LOGITS = [0.0, -2.0, -1.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("num_beams", [1, 2])
def test_searches_obey_the_rules(num_beams: int) -> None:
    """Forced first token, no bigram twice, a suppressed favourite, a forced end."""
    hypotheses = decode(
        num_beams,
        LOGITS,
        max_new_tokens=6,
        min_new_tokens=6,
        forced_bos_token_id=5,
        forced_eos_token_id=EOS,
        no_repeat_ngram_size=2,
        suppressed_tokens=(3,),
    )
    for hypothesis in hypotheses:
        tokens = hypothesis.tokens
        assert (tokens[0], tokens[-1], len(tokens)) == (5, EOS, 6)
        assert 3 not in tokens
        bigrams = list(itertools.pairwise(tokens))
        assert len(set(bigrams)) == len(bigrams)


def test_greedy_copies_no_row_when_the_winner_is_allowed() -> None:
    """The model's choice stands unless a rule bars it, and scores are the model's own."""
    plain = decode(1, LOGITS, max_new_tokens=4, return_scores=True)
    ruled = decode(1, LOGITS, max_new_tokens=4, return_scores=True, suppressed_tokens=(0,))
    assert plain == ruled


def test_forced_tokens_count_as_certain() -> None:
    """They add nothing to the score."""
    for num_beams in (1, 2):
        best = decode(
            num_beams,
            LOGITS,
            max_new_tokens=1,
            forced_eos_token_id=EOS,
            return_scores=True,
        )[0]
        assert (best.tokens, best.score) == ((EOS,), 0.0)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_options_that_leave_nothing_are_refused(num_beams: int) -> None:
    """The message says which options to loosen."""
    with pytest.raises(NoTokenLeftError) as caught:
        decode(num_beams, LOGITS, max_new_tokens=3, suppressed_tokens=tuple(range(6)))
    assert str(caught.value) == (
        "no token to go on with: `min_new_tokens`, `no_repeat_ngram_size`, `repetition_penalty`, "
        "suppressed tokens and suppressed sequences, those of the model included, together bar the "
        "whole vocabulary; loosen one of them"
    )


def test_barred_tokens_are_no_candidates() -> None:
    """With one allowed token there is one candidate, and rows without a beam go on beside it."""
    options = GenerateOptions(max_new_tokens=4, num_beams=2, suppressed_tokens=(0, 1, 2, 4, 5))
    search = make_search(options, decoder_start_token_id=START, eos_token_id=EOS)
    rows = np.tile(np.array(LOGITS, np.float32), (2, 1))
    (outcome,) = choose([(search, [0, 1])], rows)
    assert isinstance(outcome, list)
    assert [(candidate.parent, candidate.token) for candidate in outcome] == [(0, 3)]
    assert search.advance(outcome) == [0, 0]
    assert search.next_inputs() == [3, 3]
