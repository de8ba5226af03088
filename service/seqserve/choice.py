"""Picks the continuations of a step: from logits to a few candidates for each sequence.

All vocabulary-sized work happens here, once for all rows. What becomes of the candidates is the
business of :mod:`seqserve.search`.
"""

from collections.abc import Sequence as Rows

import numpy as np
from numpy.typing import NDArray

from seqserve.errors import EngineError, InvalidRequestError
from seqserve.sampling import draw_number, draw_token
from seqserve.sequence import Candidate, SearchState


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
        For each sequence its candidates: 2K for K beams, best first; otherwise one for each live
        hypothesis. Or an EngineError, if the logits of the sequence are not finite, or an
        InvalidRequestError, if its options bar every token.
    """
    is_any_greedy = any(search.options.num_beams == 1 for search, _ in searches)
    # One pass over all rows beats one call a row, even if some rows belong to beams.
    best_tokens = logits.argmax(axis=1).tolist() if is_any_greedy else []
    return [
        _choose_beams(search, logits[rows])
        if search.options.num_beams > 1
        else _choose_independently(search, rows, logits, best_tokens)
        for search, rows in searches
    ]


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
