"""Time limits that come anywhere: among several hypotheses, within a prefix, before the start."""

from typing import Any

import pytest

from fakes import EOS, START
from seqserve.generate_options import GenerateOptions
from seqserve.independent_search import IndependentSearch
from seqserve.search import make_search
from seqserve.search_state import Candidate, FinishReason, SearchState, TokenLogProbability

PREFIX = (7, 8, 9)
TOP = (TokenLogProbability(5, -0.5),)


def search_for(**options: Any) -> SearchState:
    """A search that reports all it can."""
    values: dict[str, Any] = {
        "max_new_tokens": 6,
        "return_scores": True,
        "return_token_log_probabilities": True,
        "top_log_probability_count": 1,
        **options,
    }
    return make_search(GenerateOptions(**values), decoder_start_token_id=START, eos_token_id=EOS)


def read_prefix(search: SearchState, count: int) -> None:
    """Feeds the first tokens of the prefix, as ``choose`` offers them."""
    for token in PREFIX[:count]:
        scores = enumerate(search.scores)
        search.advance([Candidate(index, token, score, 0.0) for index, score in scores])


def test_drawn_hypotheses_end_each_with_what_it_has() -> None:
    """One that ended before keeps its reason; the others have all their tokens and scores."""
    search = search_for(do_sample=True, num_return_sequences=3)
    assert isinstance(search, IndependentSearch)
    search.advance([Candidate(index, 10 + index, -1.0, -1.0, TOP) for index in range(3)])
    search.advance(
        [
            Candidate(0, 20, -2.0, -1.0, TOP),
            Candidate(1, EOS, -3.0, -2.0, TOP),
            Candidate(2, 22, -1.5, -0.5, TOP),
        ]
    )
    assert (search.num_rows, search.hypothesis_indices) == (2, [0, 2])
    search.stop(FinishReason.TIME)
    assert search.is_finished
    assert search.num_rows == 0
    found = [
        (one.tokens, one.score, one.log_probabilities, one.finish_reason, len(one.tops))
        for one in search.hypotheses()
    ]
    assert found == [
        ((10, 20), -2.0, (-1.0, -1.0), FinishReason.TIME, 2),
        ((11, EOS), -3.0, (-1.0, -2.0), FinishReason.EOS, 2),
        ((12, 22), -1.5, (-1.0, -0.5), FinishReason.TIME, 2),
    ]
    assert search.decided_tokens() == [10, 20]


def test_drawn_hypotheses_are_as_many_as_asked_for_even_without_tokens() -> None:
    """They are what they are, equal or not."""
    search = search_for(do_sample=True, num_return_sequences=3)
    search.stop(FinishReason.TIME)
    found = search.hypotheses()
    assert [(one.tokens, one.score) for one in found] == [((), 0.0)] * 3


def test_alternatives_that_were_never_begun_are_one() -> None:
    """Before the first token all are the same; behind it those that there are."""
    search = search_for(return_alternatives=True, num_return_sequences=3)
    search.stop(FinishReason.TIME)
    assert [one.tokens for one in search.hypotheses()] == [()]
    search = search_for(return_alternatives=True, num_return_sequences=3)
    search.advance([Candidate(index, 10 + index, -1.0, -1.0, TOP) for index in range(2)])
    search.stop(FinishReason.TIME)
    assert [one.tokens for one in search.hypotheses()] == [(10,), (11,)]


KINDS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"do_sample": True, "num_return_sequences": 2},
    "alternatives": {"return_alternatives": True, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "num_return_sequences": 3},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_read", range(len(PREFIX) + 1))
def test_prefix_is_whole_however_much_of_it_was_read(kind: str, num_read: int) -> None:
    """The target is the prefix; nothing behind it has a score, a probability or tops."""
    search = search_for(target_prefix=PREFIX, **KINDS[kind])
    read_prefix(search, num_read)
    assert search.decided_tokens() == (list(PREFIX) if num_read == len(PREFIX) else [])
    search.stop(FinishReason.TIME)
    assert search.is_finished
    hypotheses = search.hypotheses()
    assert len(hypotheses) == (2 if kind == "drawn" else 1)
    for one in hypotheses:
        assert one.tokens == PREFIX
        assert one.num_prefix_tokens == len(PREFIX)
        assert (one.score, one.log_probabilities, one.tops) == (0.0, (), ())
        assert one.finish_reason is FinishReason.TIME
    assert search.decided_tokens() == list(PREFIX)


def test_beams_behind_a_prefix_score_what_is_behind_it() -> None:
    """Their lengths do not count the prefix; beams that do not exist yet are no hypotheses."""
    search = search_for(target_prefix=PREFIX, num_beams=3, num_return_sequences=3)
    read_prefix(search, len(PREFIX))
    search.advance([Candidate(0, 20 + rank, -1.0 - rank, -1.0 - rank, TOP) for rank in range(6)])
    search.advance([Candidate(rank % 3, 30, -4.0 - rank, -3.0, TOP) for rank in range(6)])
    search.stop(FinishReason.TIME)
    found = [(one.tokens, one.score, one.log_probabilities) for one in search.hypotheses()]
    assert found == [
        ((*PREFIX, 20, 30), -2.0, (-1.0, -3.0)),
        ((*PREFIX, 21, 30), -2.5, (-2.0, -3.0)),
        ((*PREFIX, 22, 30), -3.0, (-3.0, -3.0)),
    ]
    assert [len(one.tops) for one in search.hypotheses()] == [2, 2, 2]
