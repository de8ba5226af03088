"""Beam search's candidates: ranked at once or gone through row by row, they are the same."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from seqserve.beam_choice import rank_beams
from seqserve.choice import choose
from seqserve.generate_options import GenerateOptions
from seqserve.ranking import rank_rows
from seqserve.search import make_search
from seqserve.search_state import Candidate, SearchState

START, EOS, SIZE = 1, 2, 400


def search_for(**options: Any) -> SearchState:
    """A search of three beams."""
    values = GenerateOptions(max_new_tokens=8, num_beams=3, **options)
    return make_search(values, decoder_start_token_id=START, eos_token_id=EOS)


def candidates_of(outcome: list[Candidate] | Exception) -> list[Candidate]:
    """The candidates; there is no error."""
    assert isinstance(outcome, list)
    return outcome


def plain_candidates(search: SearchState, logits: NDArray[np.float32]) -> list[tuple[int, int]]:
    """By a sort of all continuations: parent and token, best first."""
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    for row, target in enumerate(search.targets()):
        exact[row, search.rules.barred_tokens(target)] = -math.inf
    exact += np.array(search.scores)[:, None]
    if search.target_length == 0:
        exact[1:] = -math.inf
    order = np.argsort(-exact, axis=None, kind="stable")
    return [
        (int(place) // SIZE, int(place) % SIZE)
        for place in order[: 2 * search.num_rows]
        if np.isfinite(exact.flat[place])
    ]


@pytest.mark.parametrize("num_barred", [0, 1, 32, 33, 390, 397])
def test_candidates_are_those_of_a_sort(num_barred: int) -> None:
    """Whether few tokens are barred and passed over, many, or nearly all."""
    generator = np.random.default_rng(num_barred)
    barred = tuple(generator.permutation(np.arange(3, SIZE))[:num_barred].tolist())
    search = search_for(suppressed_tokens=barred)
    for _ in range(4):
        logits = generator.standard_normal((3, SIZE)).astype(np.float32)
        if search.target_length == 0:
            logits[1:] = logits[0]
        expected = plain_candidates(search, logits)
        before = logits.copy()
        found = candidates_of(choose([(search, [0, 1, 2])], logits)[0])
        assert [(item.parent, item.token) for item in found] == expected
        assert not set(barred) & {item.token for item in found}
        assert logits.tobytes() == before.tobytes()
        search.advance(found)
        if search.is_finished:
            break


def test_the_best_tokens_may_all_be_barred() -> None:
    """As many more are ranked as are barred."""
    search = search_for(suppressed_tokens=tuple(range(370, 400)))
    logits = np.tile(np.linspace(0, 50, SIZE, dtype=np.float32), (3, 1))
    found = candidates_of(choose([(search, [0, 1, 2])], logits)[0])
    assert [item.token for item in found] == [369, 368, 367, 366, 365, 364]


def test_rows_are_ranked_at_once_and_only_once() -> None:
    """One call for all beams of a step; the first row alone while all beams are equal."""
    calls: list[tuple[int, int]] = []

    def rank(logits: NDArray[np.float32], count: int) -> Any:
        calls.append((len(logits), count))
        return rank_rows(logits, count)

    generator = np.random.default_rng(0)
    young, old = search_for(), search_for(min_new_tokens=3)
    logits = generator.standard_normal((10, SIZE)).astype(np.float32)
    (outcome,) = choose([(old, [0, 1, 2])], logits)
    old.advance(candidates_of(outcome))
    greedy = make_search(
        GenerateOptions(max_new_tokens=3), decoder_start_token_id=START, eos_token_id=EOS
    )
    choose([(young, [7, 8, 9]), (greedy, [3]), (old, [0, 4, 2])], logits, rank)
    assert calls == [(4, 7)]
    choose([(greedy, [3])], logits, rank)
    assert len(calls) == 1


def test_rows_may_lie_anywhere() -> None:
    """What is found for a row is found for it wherever it lies."""
    generator = np.random.default_rng(1)
    logits = generator.standard_normal((6, SIZE)).astype(np.float32)
    search = search_for()
    search.advance(candidates_of(choose([(search, [0, 1, 2])], logits)[0]))
    dense = rank_beams([(search, [1, 2, 3])], logits, rank_rows)
    strewn = rank_beams([(search, [5, 0, 3])], logits[[0, 0, 0, 3, 0, 1]], rank_rows)
    assert (strewn[5], strewn[3]) == (dense[1], dense[3])
