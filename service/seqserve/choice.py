"""Picks the continuations of a step: from logits to a few candidates for each sequence.

All vocabulary-sized work happens here, once for all rows. What becomes of the candidates is the
business of :mod:`seqserve.search`.
"""

from collections.abc import Sequence as Rows

import numpy as np
from numpy.typing import NDArray

from seqserve.errors import EngineError, InvalidRequestError
from seqserve.sequence import Candidate, SearchState
from seqserve.target_scoring import TargetScoring


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
        For each sequence its candidates, best first: one for greedy search, 2K for K beams; for K
        given targets their next tokens, in their order. Or an EngineError, if the logits of the
        sequence are not finite, or an InvalidRequestError, if its options bar every token.
    """
    is_any_greedy = any(search.num_rows == 1 for search, _ in searches)
    # One pass over all rows beats one call a row, even if some rows belong to beams.
    best_tokens = logits.argmax(axis=1).tolist() if is_any_greedy else []
    return [
        _score_given(search, logits[rows])
        if isinstance(search, TargetScoring)
        else _choose_beams(search, logits[rows])
        if search.num_rows > 1
        else _choose_greedy(search, logits[rows[0]], best_tokens[rows[0]])
        for search, rows in searches
    ]


def _choose_greedy(
    search: SearchState, logits: NDArray[np.float32], token: int
) -> list[Candidate] | Exception:
    # argmax returns the first NaN of a row if there is one, so one look at the winner is enough.
    if not np.isfinite(logits[token]):
        return _not_finite()
    rules = search.rules
    if rules.is_active:
        target = search.targets()[0]
        if (forced := rules.forced_token(target)) is not None:
            return [Candidate(0, forced, search.scores[0], 0.0)]
        # The rules seldom bar the winner; only then the row is copied and searched again.
        if rules.is_penalizing or token in rules.barred_tokens(target):
            ruled = logits.copy()
            rules.apply(ruled, target)
            token = int(ruled.argmax())
            if not np.isfinite(ruled[token]):
                return _nothing_left()
    if not search.options.needs_log_probabilities:
        return [Candidate(0, token, 0.0, 0.0)]
    log_probability = float(log_softmax(logits[None])[0, token])
    return [Candidate(0, token, search.scores[0] + log_probability, log_probability)]


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


def _score_given(search: TargetScoring, logits: NDArray[np.float32]) -> list[Candidate] | Exception:
    log_probabilities = log_softmax(logits)  # [K, V]
    if np.isnan(log_probabilities[:, 0]).any():
        return _not_finite()
    tokens = search.next_tokens()
    chosen = log_probabilities[np.arange(len(tokens)), tokens].tolist()
    return [
        Candidate(row, token, score + log_probability, log_probability)
        for row, (token, score, log_probability) in enumerate(
            zip(tokens, search.scores, chosen, strict=True)
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
