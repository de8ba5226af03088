"""Picks the continuations of a step: from logits to a few candidates for each sequence.

All vocabulary-sized work happens here, once for all rows. What becomes of the candidates is the
business of :mod:`seqserve.search`.
"""

import math
from collections.abc import Sequence as Rows

import numpy as np
from numpy.typing import NDArray

from seqserve.beam_choice import Rank, RankedRow, choose_beams, rank_beams
from seqserve.no_choice import not_finite, nothing_left
from seqserve.ranking import largest_indices, log_sum_exp, rank_rows
from seqserve.sampling import draw_number, draw_token
from seqserve.search_state import Candidate, SearchState, TokenLogProbability
from seqserve.target_scoring import TargetScoring


def choose(
    searches: Rows[tuple[SearchState, list[int]]],
    logits: NDArray[np.float32],
    rank: Rank = rank_rows,
) -> list[list[Candidate] | Exception]:
    """Chooses the best continuations of every sequence of a step.

    Args:
        searches: Each state with the rows of ``logits`` that belong to its live hypotheses, [K].
        logits: [B, V], float32.
        rank: What ranks the rows of beams.

    Returns:
        For each sequence its candidates: up to 2K for K beams, best first; otherwise, and within a
        prefix, one for each live hypothesis; for given targets their next tokens, in their order.
        Or an EngineError, if the logits of the sequence are not finite, or a NoTokenLeftError,
        if its options bar every token.
    """
    is_any_greedy = any(
        search.options.num_beams == 1 and not isinstance(search, TargetScoring)
        for search, _ in searches
    )
    # One pass over all rows beats one call a row, even if some rows belong to beams.
    winners: list[tuple[int, float]] = []
    if is_any_greedy:
        tokens = logits.argmax(axis=1)
        values = np.take_along_axis(logits, tokens[:, None], axis=1)[:, 0]
        winners = list(zip(tokens.tolist(), values.tolist(), strict=True))
    ranked = rank_beams(searches, logits, rank)
    return [_choose_for(search, rows, logits, winners, ranked) for search, rows in searches]


def _choose_for(
    search: SearchState,
    rows: list[int],
    logits: NDArray[np.float32],
    winners: list[tuple[int, float]],
    ranked: dict[int, RankedRow],
) -> list[Candidate] | Exception:
    """The candidates of one sequence; ``winners`` are the best token and logit of each row."""
    if isinstance(search, TargetScoring):
        return _score_given(search, rows, logits)
    if (given := follow_prefix(search)) is not None:
        return given
    options, position = search.options, search.target_length
    tops = _find_top(logits, rows, options.top_log_probability_count)
    if options.num_beams > 1:
        outcome = choose_beams(search, rows, logits, ranked)
    elif options.return_alternatives and position == options.num_fixed_tokens:
        outcome = _choose_alternatives(search, logits[rows[0]])
    else:
        outcome = _choose_independently(search, rows, logits, winners)
    if isinstance(outcome, Exception) or not tops:
        return outcome
    return [candidate._replace(top=tops[candidate.parent]) for candidate in outcome]


def follow_prefix(search: SearchState) -> list[Candidate] | None:
    """The candidates of a sequence within its prefix; None behind it."""
    prefix, position = search.options.target_prefix, search.target_length
    if position >= len(prefix):
        return None
    token = prefix[position]
    return [Candidate(index, token, score, 0.0) for index, score in enumerate(search.scores)]


def _find_top(
    logits: NDArray[np.float32], rows: list[int], count: int
) -> list[tuple[TokenLogProbability, ...]]:
    """The most probable tokens of each row, best first; nothing for count 0."""
    if not count:
        return []
    tops = []
    for row in rows:
        best = largest_indices(logits[row], count)
        log_probabilities = logits[row, best] - np.float32(log_sum_exp(logits[row]))
        tops.append(tuple(map(TokenLogProbability, best.tolist(), log_probabilities.tolist())))
    return tops


def _choose_alternatives(
    search: SearchState, logits: NDArray[np.float32]
) -> list[Candidate] | Exception:
    """Begins each hypothesis with another token. All are equal so far: one row [V] is enough."""
    if not np.isfinite(logits.max()):
        return not_finite()
    options, rules, target = search.options, search.rules, search.targets()[0]
    if (forced := rules.forced_token(target)) is not None:
        return [Candidate(index, forced, 0.0, 0.0) for index in range(search.num_rows)]
    ruled = logits.copy()
    rules.apply(ruled, target)
    tokens = largest_indices(ruled, search.num_rows)
    tokens = tokens[np.isfinite(ruled[tokens])]
    if not tokens.size:
        return nothing_left()
    log_probabilities = logits[tokens] - np.float32(log_sum_exp(logits))
    is_likely = np.exp(log_probabilities.astype(np.float64)) >= options.min_alternative_probability
    is_likely[0] = True
    scores = log_probabilities if options.needs_log_probabilities else np.zeros(tokens.size)
    pairs = zip(tokens[is_likely].tolist(), scores[is_likely].tolist(), strict=True)
    return [Candidate(index, token, score, score) for index, (token, score) in enumerate(pairs)]


def _choose_independently(
    search: SearchState,
    rows: list[int],
    logits: NDArray[np.float32],
    winners: list[tuple[int, float]],
) -> list[Candidate] | Exception:
    candidates: list[Candidate] = []
    for index, row in enumerate(rows):
        candidate = _choose_one(search, index, logits[row], *winners[row])
        if isinstance(candidate, Exception):
            return candidate
        candidates.append(candidate)
    return candidates


def _choose_one(
    search: SearchState, index: int, logits: NDArray[np.float32], token: int, logit: float
) -> Candidate | Exception:
    """Continues one live hypothesis, by the best token or by a drawn one.

    Args:
        search: All hypotheses of the sequence.
        index: Of the live hypothesis.
        logits: Its own, [V].
        token: The best, as far as the model is concerned.
        logit: Of this token.
    """
    # argmax returns the first NaN of a row if there is one, so one look at the winner is enough.
    if not math.isfinite(logit):
        return not_finite()
    options, rules, score = search.options, search.rules, search.scores[index]
    target = search.targets()[index]
    ruled = logits
    if rules.is_active:
        if (forced := rules.forced_token(target)) is not None:
            return Candidate(index, forced, score, 0.0)
        # The rules seldom bar the winner; only then the row is copied and searched again.
        if options.do_sample or rules.is_penalizing or token in rules.barred_tokens(target):
            ruled = logits.copy()
            rules.apply(ruled, target)
            token = int(ruled.argmax())
            if not np.isfinite(ruled[token]):
                return nothing_left()
    if options.do_sample:
        number = draw_number(options.seed, search.hypothesis_indices[index], len(target))
        token = draw_token(ruled, options, number)
    if not options.needs_log_probabilities:
        return Candidate(index, token, 0.0, 0.0)
    log_probability = float(logits[token] - np.float32(log_sum_exp(logits)))
    return Candidate(index, token, score + log_probability, log_probability)


def _score_given(
    search: TargetScoring, rows: list[int], logits: NDArray[np.float32]
) -> list[Candidate] | Exception:
    candidates = []
    for index, (row, token, score) in enumerate(
        zip(rows, search.next_tokens(), search.scores, strict=True)
    ):
        normalizer = log_sum_exp(logits[row])
        if math.isnan(normalizer):
            return not_finite()
        log_probability = float(logits[row, token] - np.float32(normalizer))
        candidates.append(Candidate(index, token, score + log_probability, log_probability))
    return candidates
