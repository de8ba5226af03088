"""Alternatives: hypotheses that each begin with another token."""

from typing import Any

import numpy as np
import pytest

from fakes import EOS, START
from toy_search import normalized, run_alone, search_for, table


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
