"""Picks the continuations of a step: from logits to a few candidates for each sequence.

All vocabulary-sized work happens here, once for all rows. What becomes of the candidates is the
business of :mod:`seqserve.search`.
"""

from collections.abc import Sequence as Rows

import numpy as np
from numpy.typing import NDArray

from seqserve.errors import EngineError, InvalidRequestError
from seqserve.sampling import draw_number, draw_token
from seqserve.sequence import Candidate, SearchState, TokenLogProbability


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalises rows of logits [N, V] to log-probabilities, in float32."""
    with np.errstate(invalid="ignore"):  # infinite logits become NaN, which `choose` refuses
        shifted = logits - logits.max(axis=-1, keepdims=True)
    normalized: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalized


def choose(
    searches: Rows[tuple[SearchState, list[int]]], logits: NDArray[np.float32]
) -> list[list[Candidate] | Exception]:
    """Chooses the best continuations of every sequence of a step.

    Args:
        searches: Each state with the rows of ``logits`` that belong to its live hypotheses, [K].
        logits: [B, V], float32.

    Returns:
        For each sequence its candidates: 2K for K beams, best first; otherwise, and within a
        prefix, one for each live hypothesis. Or an EngineError, if the logits of the sequence are
        not finite, or an InvalidRequestError, if its options bar every token.
    """
    is_any_greedy = any(search.options.num_beams == 1 for search, _ in searches)
    # One pass over all rows beats one call a row, even if some rows belong to beams.
    best_tokens = logits.argmax(axis=1).tolist() if is_any_greedy else []
    return [_choose_for(search, rows, logits, best_tokens) for search, rows in searches]


def _choose_for(
    search: SearchState, rows: list[int], logits: NDArray[np.float32], best_tokens: list[int]
) -> list[Candidate] | Exception:
    """The candidates of one sequence."""
    options, position = search.options, search.target_length
    if position < len(options.target_prefix):
        token = options.target_prefix[position]
        return [Candidate(index, token, score, 0.0) for index, score in enumerate(search.scores)]
    if options.num_beams > 1:
        outcome = _choose_beams(search, logits[rows])
    elif options.return_alternatives and position == options.num_fixed_tokens:
        outcome = _choose_alternatives(search, logits[rows[0]])
    else:
        outcome = _choose_independently(search, rows, logits, best_tokens)
    if isinstance(outcome, Exception) or not options.top_log_probability_count:
        return outcome
    tops = _find_top(logits[rows], options.top_log_probability_count)
    return [candidate._replace(top=tops[candidate.parent]) for candidate in outcome]


def _find_top(logits: NDArray[np.float32], count: int) -> list[tuple[TokenLogProbability, ...]]:
    """The most probable tokens of each row of logits [K, V], best first."""
    tops = []
    for row in log_softmax(logits):
        best = _best(row, count)
        tops.append(tuple(map(TokenLogProbability, best.tolist(), row[best].tolist())))
    return tops


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices of the highest scores [V], best first; of equals the lower index comes first."""
    count = min(count, scores.size)
    threshold = np.partition(scores, scores.size - count)[scores.size - count]
    best = np.flatnonzero(scores >= threshold)
    return best[np.argsort(-scores[best], kind="stable")][:count]


def _choose_alternatives(
    search: SearchState, logits: NDArray[np.float32]
) -> list[Candidate] | Exception:
    """Begins each hypothesis with another token. All are equal so far: one row [V] is enough."""
    if not np.isfinite(logits.max()):
        return _not_finite()
    options, rules, target = search.options, search.rules, search.targets()[0]
    if (forced := rules.forced_token(target)) is not None:
        return [Candidate(index, forced, 0.0, 0.0) for index in range(search.num_rows)]
    ruled = logits.copy()
    rules.apply(ruled, target)
    tokens = _best(ruled, search.num_rows)
    tokens = tokens[np.isfinite(ruled[tokens])]
    if not tokens.size:
        return _nothing_left()
    log_probabilities = log_softmax(logits[None])[0, tokens]
    is_likely = np.exp(log_probabilities.astype(np.float64)) >= options.min_alternative_probability
    is_likely[0] = True
    scores = log_probabilities if options.needs_log_probabilities else np.zeros(tokens.size)
    pairs = zip(tokens[is_likely].tolist(), scores[is_likely].tolist(), strict=True)
    return [Candidate(index, token, score, score) for index, (token, score) in enumerate(pairs)]


def _choose_independently(
    search: SearchState, rows: list[int], logits: NDArray[np.float32], best_tokens: list[int]
) -> list[Candidate] | Exception:
    candidates: list[Candidate] = []
    for index, row in enumerate(rows):
        candidate = _choose_one(search, index, logits[row], best_tokens[row])
        if isinstance(candidate, Exception):
            return candidate
        candidates.append(candidate)
    return candidates


def _choose_one(
    search: SearchState, index: int, logits: NDArray[np.float32], token: int
) -> Candidate | Exception:
    """Continues one live hypothesis, by the best token or by a drawn one.

    Args:
        search: All hypotheses of the sequence.
        index: Of the live hypothesis.
        logits: Its own, [V].
        token: The best, as far as the model is concerned.
    """
    # argmax returns the first NaN of a row if there is one, so one look at the winner is enough.
    if not np.isfinite(logits[token]):
        return _not_finite()
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
                return _nothing_left()
    if options.do_sample:
        number = draw_number(options.seed, search.hypothesis_indices[index], len(target))
        token = draw_token(ruled, options, number)
    if not options.needs_log_probabilities:
        return Candidate(index, token, 0.0, 0.0)
    log_probability = float(log_softmax(logits[None])[0, token])
    return Candidate(index, token, score + log_probability, log_probability)


def _choose_beams(search: SearchState, logits: NDArray[np.float32]) -> list[Candidate] | Exception:
    log_probabilities = log_softmax(logits)  # [K, V]
    # A NaN or an infinity in a row of logits makes NaN of the whole row.
    if np.isnan(log_probabilities[:, 0]).any():
        return _not_finite()
    if search.rules.is_active:
        for row, target in zip(log_probabilities, search.targets(), strict=True):
            search.rules.apply(row, target)
    totals = log_probabilities + np.array(search.scores, np.float32)[:, None]
    flat = totals.ravel()  # [K, V] -> [K*V]
    num_candidates = min(2 * search.num_rows, flat.size)
    threshold = np.partition(flat, -num_candidates)[-num_candidates]
    best = np.flatnonzero(flat >= threshold)  # all that tie with the last one
    best = best[np.lexsort((best, -flat[best]))][:num_candidates]  # ties by lower index
    if np.isneginf(flat[best[0]]):
        return _nothing_left()
    parents, tokens = np.divmod(best, logits.shape[1])
    return [
        Candidate(parent, token, score, log_probability)
        for parent, token, score, log_probability in zip(
            parents.tolist(),
            tokens.tolist(),
            flat[best].tolist(),
            log_probabilities[parents, tokens].tolist(),
            strict=True,
        )
    ]


def _not_finite() -> EngineError:
    return EngineError("the model returned logits that are not finite")


def _nothing_left() -> InvalidRequestError:
    return InvalidRequestError(
        "options",
        "`options` leave no token to go on with: minimum length, no-repeat n-grams and suppressed "
        "tokens together bar the whole vocabulary; loosen one of them",
    )
