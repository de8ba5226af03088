"""Picks the continuations of beam search: from logits to the 2K best of all beams of a sequence.

The rows of all beams of a step are ranked at once. Where rules bar a few tokens, so many more are
ranked, and those barred are passed over; where they bar many or change what is allowed, the row is
gone through as a whole. Which way a row goes depends on its own sequence only.
"""

import itertools
import math
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqserve.no_choice import not_finite, nothing_left
from seqserve.ranking import largest_indices, log_sum_exp
from seqserve.search_state import Candidate, SearchState

Rank = Callable[[NDArray[np.float32], int], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""What ranks rows: :func:`seqserve.ranking.rank_rows`, or a graph that does the same."""

_MAX_PASSED_OVER = 32
"""Barred tokens of a row above which ranking so many more no longer pays."""
_MAX_SPAN = 1.3
"""Rows to rank for each one that is needed, at most."""


class _Look(NamedTuple):
    """A row to be ranked."""

    row: int
    score: float
    """Of the live hypothesis, so far."""
    barred: frozenset[int]


class RankedRow(NamedTuple):
    """The best tokens of one live hypothesis, best first; tokens that are barred may be among them.

    All have the same length, 2K at least without those that are barred, or the vocabulary's.
    """

    tokens: list[int]
    log_probabilities: list[float]
    totals: list[float]
    """Scores of the hypotheses that these tokens would make."""
    barred: frozenset[int]


def rank_beams(
    searches: Items[tuple[SearchState, list[int]]], logits: NDArray[np.float32], rank: Rank
) -> dict[int, RankedRow]:
    """Ranks the rows of all beams that have a choice.

    Args:
        searches: Each state with the rows of its live hypotheses.
        logits: [B, V], float32.
        rank: What ranks.

    Returns:
        By row.
    """
    looks: list[_Look] = []
    count = 0
    for search, rows in searches:
        options = search.options
        if options.num_beams == 1 or search.target_length < len(options.target_prefix):
            continue
        own = _looks(search, rows)
        looks += own
        num_barred = max((len(look.barred) for look in own), default=0)
        count = max(count, 2 * search.num_rows + num_barred)
    if not looks:
        return {}
    needed = np.array([look.row for look in looks])
    first, last = needed.min(), needed.max()
    # Ranking a few rows that nobody needs is cheaper than gathering those that somebody does.
    if last - first < _MAX_SPAN * len(needed):
        tokens, log_probabilities = (
            found[needed - first] for found in rank(logits[first : last + 1], count)
        )
    else:
        tokens, log_probabilities = rank(logits[needed], count)
    # In the precision of the logits, as the scores of transformers are.
    totals = log_probabilities + np.array([look.score for look in looks], np.float32)[:, None]
    values = zip(tokens.tolist(), log_probabilities.tolist(), totals.tolist(), strict=True)
    return {look.row: RankedRow(*row, look.barred) for look, row in zip(looks, values, strict=True)}


def _looks(search: SearchState, rows: list[int]) -> list[_Look]:
    """The rows of a sequence for which ranking is enough."""
    rules = search.rules
    if rules.is_penalizing:
        return []
    looks = []
    for row, score, target in zip(
        _distinct(search, rows), search.scores, search.targets(), strict=False
    ):
        barred: frozenset[int] = frozenset()
        if rules.is_active:
            barred = frozenset(rules.barred_tokens(target))
            if len(barred) > _MAX_PASSED_OVER or rules.forced_token(target) is not None:
                continue
        looks.append(_Look(row, score, barred))
    return looks


def _distinct(search: SearchState, rows: list[int]) -> list[int]:
    """The rows to continue from: all beams are equal before the first token after a prefix."""
    is_first = search.target_length == len(search.options.target_prefix)
    return rows[:1] if is_first else rows


def choose_beams(
    search: SearchState,
    rows: list[int],
    logits: NDArray[np.float32],
    ranked: dict[int, RankedRow],
) -> list[Candidate] | Exception:
    """The 2K best continuations of all beams, best first; fewer if no more are allowed.

    Args:
        search: The sequence.
        rows: Of its live hypotheses.
        logits: [B, V], float32.
        ranked: What :func:`rank_beams` found; rows that are not there are gone through here.
    """
    num_candidates = 2 * search.num_rows
    best: list[tuple[float, int, int, float]] = []
    for parent, row in enumerate(_distinct(search, rows)):
        found = ranked.get(row)
        if found is None:
            found = _go_through(search, parent, logits[row], num_candidates)
        if math.isnan(found.totals[0]):
            return not_finite()
        allowed = (
            (-total, parent, token, log_probability)
            for token, log_probability, total in zip(*found[:3], strict=True)
            if token not in found.barred and not math.isinf(total)
        )
        best += itertools.islice(allowed, num_candidates)
    if not best:
        return nothing_left()
    best.sort()  # ties by lower beam, then by lower token
    return [
        Candidate(parent, token, -negated, log_probability)
        for negated, parent, token, log_probability in best[:num_candidates]
    ]


def _go_through(
    search: SearchState, index: int, logits: NDArray[np.float32], count: int
) -> RankedRow:
    """The best tokens of one live hypothesis after all its rules.

    Args:
        search: The sequence.
        index: Of the live hypothesis.
        logits: Its own, [V].
        count: How many tokens.
    """
    log_probabilities = logits - np.float32(log_sum_exp(logits))
    if np.isnan(log_probabilities).any():
        return RankedRow([0], [math.nan], [math.nan], frozenset())
    search.rules.apply(log_probabilities, search.targets()[index])
    tokens = largest_indices(log_probabilities, count)
    values = log_probabilities[tokens]
    totals = values + np.float32(search.scores[index])
    return RankedRow(tokens.tolist(), values.tolist(), totals.tolist(), frozenset())
