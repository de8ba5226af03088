"""Picks tokens: pure functions and states, no onnxruntime, no clock, no thread.

Vocabulary-sized work happens in :func:`choose`, once for all rows of a step; what follows per
sequence, in :class:`GreedySearch` and :class:`BeamSearch`, handles only a few candidates.

Source: the semantics are those of ``transformers`` 5 (``GenerationMixin._beam_search``): 2K
candidates a step, of which the best K may finish; a finished hypothesis scores
``sum_log_probabilities / length ** length_penalty`` where the length counts the end token.
"""

import math
from collections.abc import Sequence as Rows

import numpy as np
from numpy.typing import NDArray

from seqserve.errors import EngineError, InvalidRequestError
from seqserve.rules import TokenRules
from seqserve.sequence import Candidate, FinishReason, GenerateOptions, Hypothesis, SearchState

_UNREACHABLE = -1e9
"""Score of the beams that do not exist yet at the first step."""


def make_search(
    options: GenerateOptions, *, decoder_start_token_id: int, eos_token_id: int
) -> SearchState:
    """Makes the state that the options ask for."""
    kind = GreedySearch if options.num_beams == 1 else BeamSearch
    return kind(options, decoder_start_token_id, eos_token_id)


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
        For each sequence its candidates, best first: one for greedy search, 2K for K beams. Or an
        EngineError, if the logits of the sequence are not finite, or an InvalidRequestError, if
        its options bar every token.
    """
    is_any_greedy = any(search.num_rows == 1 for search, _ in searches)
    # One pass over all rows beats one call a row, even if some rows belong to beams.
    best_tokens = logits.argmax(axis=1).tolist() if is_any_greedy else []
    return [
        _choose_beams(search, logits[rows])
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


def _not_finite() -> EngineError:
    return EngineError("the model returned logits that are not finite")


def _nothing_left() -> InvalidRequestError:
    return InvalidRequestError(
        "options",
        "`options` leave no token to go on with: minimum length, no-repeat n-grams and suppressed "
        "tokens together bar the whole vocabulary; loosen one of them",
    )


class GreedySearch:
    """One hypothesis, continued by its most probable token."""

    def __init__(
        self, options: GenerateOptions, decoder_start_token_id: int, eos_token_id: int
    ) -> None:
        self.options = options
        self.rules = TokenRules(options, decoder_start_token_id, eos_token_id)
        self._start = decoder_start_token_id
        self._eos = eos_token_id
        self._tokens: list[int] = []
        self._log_probabilities: list[float] = []
        self._score = 0.0
        self._finish_reason: FinishReason | None = None

    @property
    def num_rows(self) -> int:
        """Always one row."""
        return 1

    @property
    def target_length(self) -> int:
        """Tokens so far."""
        return len(self._tokens)

    @property
    def is_finished(self) -> bool:
        """Whether the end token or the limit was reached."""
        return self._finish_reason is not None

    @property
    def scores(self) -> list[float]:
        """Sum of log-probabilities, [1]."""
        return [self._score]

    def next_inputs(self) -> list[int]:
        """The newest token, or the start token, [1]."""
        return [self._tokens[-1] if self._tokens else self._start]

    def targets(self) -> list[list[int]]:
        """The tokens so far, [1]."""
        return [self._tokens]

    def advance(self, candidates: list[Candidate]) -> list[int]:
        """Appends the one candidate."""
        best = candidates[0]
        self._tokens.append(best.token)
        self._log_probabilities.append(best.log_probability)
        self._score = best.score
        if best.token == self._eos:
            self._finish_reason = FinishReason.EOS
        elif len(self._tokens) == self.options.max_new_tokens:
            self._finish_reason = FinishReason.LENGTH
        return [0]

    def decided_tokens(self) -> list[int]:
        """All tokens: greedy search never takes one back."""
        return self._tokens

    def hypotheses(self) -> list[Hypothesis]:
        """The one hypothesis."""
        assert self._finish_reason is not None
        options = self.options
        wanted = options.return_token_log_probabilities
        return [
            Hypothesis(
                tokens=tuple(self._tokens),
                score=self._score if options.return_scores else None,
                log_probabilities=tuple(self._log_probabilities) if wanted else None,
                finish_reason=self._finish_reason,
            )
        ]


class _Beam:
    """A live hypothesis of beam search."""

    __slots__ = ("log_probabilities", "score", "tokens")

    def __init__(self, tokens: list[int], log_probabilities: list[float], score: float) -> None:
        self.tokens = tokens
        self.log_probabilities = log_probabilities
        self.score = score

    def extend(self, candidate: Candidate) -> "_Beam":
        return _Beam(
            [*self.tokens, candidate.token],
            [*self.log_probabilities, candidate.log_probability],
            candidate.score,
        )


class BeamSearch:
    """K live hypotheses and the pool of the K best finished ones."""

    def __init__(
        self, options: GenerateOptions, decoder_start_token_id: int, eos_token_id: int
    ) -> None:
        self.options = options
        self.rules = TokenRules(options, decoder_start_token_id, eos_token_id)
        self._start = decoder_start_token_id
        self._eos = eos_token_id
        # All beams are equal at first; only the first may be continued, or all would stay equal.
        self._live = [
            _Beam([], [], 0.0 if index == 0 else _UNREACHABLE) for index in range(options.num_beams)
        ]
        self._pool: list[Hypothesis] = []  # best first
        self._is_finished = False

    @property
    def num_rows(self) -> int:
        """One row a beam, K."""
        return self.options.num_beams

    @property
    def target_length(self) -> int:
        """Tokens each live hypothesis has so far."""
        return len(self._live[0].tokens)

    @property
    def is_finished(self) -> bool:
        """Whether no live hypothesis can still enter the pool."""
        return self._is_finished

    @property
    def scores(self) -> list[float]:
        """Sum of log-probabilities of each live hypothesis, [K]."""
        return [beam.score for beam in self._live]

    def next_inputs(self) -> list[int]:
        """The newest token of each live hypothesis, [K]."""
        return [beam.tokens[-1] if beam.tokens else self._start for beam in self._live]

    def targets(self) -> list[list[int]]:
        """The tokens of each live hypothesis, [K]."""
        return [beam.tokens for beam in self._live]

    def advance(self, candidates: list[Candidate]) -> list[int]:
        """Moves finished candidates to the pool and goes on with the K best others."""
        num_beams, length = self.options.num_beams, self.target_length + 1
        is_last_step = length == self.options.max_new_tokens
        live: list[_Beam] = []
        parents: list[int] = []
        for rank, candidate in enumerate(candidates):
            is_end = candidate.token == self._eos
            if is_end or is_last_step:
                if rank < num_beams:
                    reason = FinishReason.EOS if is_end else FinishReason.LENGTH
                    self._finish(self._live[candidate.parent].extend(candidate), reason)
            elif len(live) < num_beams:
                live.append(self._live[candidate.parent].extend(candidate))
                parents.append(candidate.parent)
        if is_last_step:
            self._is_finished = True
            return []
        self._live = live
        if len(self._pool) == num_beams:
            attainable = _normalize(live[0].score, length, self.options.length_penalty)
            worst = self._pool[-1].score
            assert worst is not None
            self._is_finished = self.options.early_stopping or attainable <= worst
        return parents

    def _finish(self, beam: _Beam, reason: FinishReason) -> None:
        wanted = self.options.return_token_log_probabilities
        hypothesis = Hypothesis(
            tokens=tuple(beam.tokens),
            score=_normalize(beam.score, len(beam.tokens), self.options.length_penalty),
            log_probabilities=tuple(beam.log_probabilities) if wanted else None,
            finish_reason=reason,
        )
        self._pool.append(hypothesis)
        self._pool.sort(key=_descending_score)  # stable: of equals the earlier one stays ahead
        del self._pool[self.options.num_beams :]

    def decided_tokens(self) -> list[int]:
        """The prefix that all live and all pooled hypotheses share."""
        if self._is_finished:
            return list(self._pool[0].tokens)
        tokens = [beam.tokens for beam in self._live]
        tokens += [list(hypothesis.tokens) for hypothesis in self._pool]
        shared = 0
        for column in zip(*tokens, strict=False):
            if len(set(column)) > 1:
                break
            shared += 1
        return tokens[0][:shared]

    def hypotheses(self) -> list[Hypothesis]:
        """The best ``num_return_sequences`` of the pool."""
        return self._pool[: self.options.num_return_sequences]


def _normalize(score: float, length: int, length_penalty: float) -> float:
    """The score per length; its limit where the power leaves the range of floats."""
    try:
        return score / math.pow(length, length_penalty)
    except OverflowError:
        return -0.0
    except ZeroDivisionError:
        return -math.inf if score else -0.0


def _descending_score(hypothesis: Hypothesis) -> float:
    assert hypothesis.score is not None
    return -hypothesis.score
