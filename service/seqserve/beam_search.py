"""Beam search: K live hypotheses, continued together, and the pool of the best finished ones.

Source: the semantics are those of ``transformers`` 5 (``GenerationMixin._beam_search``): 2K
candidates a step, of which the best K may finish; a finished hypothesis scores
``sum_log_probabilities / length ** length_penalty`` where the length counts the end token, but not
a prefix.
"""

import math

from seqserve.generate_options import GenerateOptions
from seqserve.rules import TokenRules
from seqserve.search_state import (
    Candidate,
    FinishReason,
    Hypothesis,
    StopFinder,
    TokenLogProbability,
)

_UNREACHABLE = -1e9
"""Score of the beams that do not exist yet at the first step."""


class _Beam:
    """A live hypothesis of beam search."""

    __slots__ = (
        "is_reachable",
        "log_probabilities",
        "score",
        "stop_sequence",
        "stop_window",
        "tokens",
        "tops",
    )

    def __init__(
        self,
        tokens: list[int],
        log_probabilities: list[float],
        score: float,
        tops: list[tuple[TokenLogProbability, ...]],
        stop_window: int = 0,
    ) -> None:
        self.tokens = tokens
        self.log_probabilities = log_probabilities
        self.score = score
        self.tops = tops
        self.stop_window = stop_window
        self.stop_sequence: str | None = None
        self.is_reachable = True
        """False for a beam that only fills a row: there are not as many hypotheses yet."""

    def extend(self, candidate: Candidate, stops: StopFinder | None) -> "_Beam":
        beam = _Beam(
            [*self.tokens, candidate.token],
            [*self.log_probabilities, candidate.log_probability],
            candidate.score,
            [*self.tops, candidate.top] if candidate.top else self.tops,
            self.stop_window,
        )
        if stops is not None:
            beam.stop_sequence, beam.stop_window = stops.find(beam.tokens, beam.stop_window)
        beam.is_reachable = self.is_reachable
        return beam

    def as_unreachable(self) -> "_Beam":
        beam = _Beam(self.tokens, self.log_probabilities, _UNREACHABLE, self.tops, self.stop_window)
        beam.is_reachable = False
        return beam


class BeamSearch:
    """K live hypotheses and the pool of the K best finished ones."""

    def __init__(
        self,
        options: GenerateOptions,
        decoder_start_token_id: int,
        eos_token_id: int,
        stops: StopFinder | None = None,
    ) -> None:
        self.options = options
        self.rules = TokenRules(options, decoder_start_token_id, eos_token_id)
        self._start = decoder_start_token_id
        self._eos = eos_token_id
        self._stops = stops
        # All beams are equal at first; only the first may be continued, or all would stay equal.
        first = _Beam([], [], 0.0, [])
        self._live = [first, *(first.as_unreachable() for _ in range(options.num_beams - 1))]
        self._pool: list[Hypothesis] = []  # best first
        self._is_finished = False

    @property
    def origin(self) -> tuple[object, ...]:
        """The start token and the end token."""
        return (self._start, self._eos)

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

    @property
    def hypothesis_indices(self) -> list[int]:
        """In the order of the beams, [K]."""
        return list(range(self.num_rows))

    def next_inputs(self) -> list[int]:
        """The newest token of each live hypothesis, [K]."""
        return [beam.tokens[-1] if beam.tokens else self._start for beam in self._live]

    def targets(self) -> list[list[int]]:
        """The tokens of each live hypothesis, [K]."""
        return [beam.tokens for beam in self._live]

    def advance(self, candidates: list[Candidate]) -> list[int]:
        """Moves finished candidates to the pool and goes on with the K best others."""
        num_beams = self.options.num_beams
        length = self.target_length + 1 - len(self.options.target_prefix)
        is_last_step = length == self.options.max_new_tokens
        live: list[_Beam] = []
        parents: list[int] = []
        stops = self._stops if length > 0 else None
        for rank, candidate in enumerate(candidates):
            is_end = is_last_step or (length > 0 and candidate.token == self._eos)
            if rank >= num_beams and (is_end or len(live) == num_beams):
                continue
            beam = self._live[candidate.parent].extend(candidate, stops)
            if is_end or beam.stop_sequence is not None:
                if rank < num_beams:
                    self._finish(beam)
            elif len(live) < num_beams:
                live.append(beam)
                parents.append(candidate.parent)
        if is_last_step or not live:
            if not self._pool:
                best = self._live[candidates[0].parent].extend(candidates[0], stops)
                self._finish(best, is_last_resort=True)
            self._is_finished = True
            return []
        # Stop sequences may have ended so many that fewer than K are left. The rows stay K.
        num_missing = num_beams - len(live)
        live += [live[0].as_unreachable() for _ in range(num_missing)]
        parents += parents[:1] * num_missing
        self._live = live
        if len(self._pool) == num_beams:
            attainable = normalize_score(live[0].score, length, self.options.length_penalty)
            worst = self._pool[-1].score
            assert worst is not None
            self._is_finished = self.options.early_stopping or attainable <= worst
        return parents

    def stop(self, reason: FinishReason) -> None:
        """Ends with the best of the live and the finished hypotheses; a prefix is whole."""
        for beam in self._live:
            beam.tokens = [*beam.tokens, *self.options.target_prefix[len(beam.tokens) :]]
            self._finish(beam, reason)
        if not self._pool:
            self._finish(self._live[0], reason, is_last_resort=True)
        self._is_finished = True

    def _finish(
        self, beam: _Beam, reason: FinishReason | None = None, *, is_last_resort: bool = False
    ) -> None:
        if not beam.is_reachable and not is_last_resort:
            return
        wanted = self.options.return_token_log_probabilities
        if reason is None:
            reason = FinishReason.EOS if beam.tokens[-1] == self._eos else FinishReason.LENGTH
            if beam.stop_sequence is not None:
                reason = FinishReason.STOP_SEQUENCE
        num_prefix_tokens = len(self.options.target_prefix)
        length = len(beam.tokens) - num_prefix_tokens
        hypothesis = Hypothesis(
            tokens=tuple(beam.tokens),
            # A hypothesis that was stopped before its first token has length 0.
            score=normalize_score(beam.score, length or 1, self.options.length_penalty),
            log_probabilities=tuple(beam.log_probabilities[num_prefix_tokens:]) if wanted else None,
            finish_reason=reason,
            stop_sequence=beam.stop_sequence,
            num_prefix_tokens=num_prefix_tokens,
            tops=tuple(beam.tops),
        )
        self._pool.append(hypothesis)
        self._pool.sort(key=_descending_score)  # stable: of equals the earlier one stays ahead
        del self._pool[self.options.num_beams :]

    def decided_tokens(self) -> list[int]:
        """What all live and all pooled hypotheses begin with, once the prefix is whole."""
        if self.target_length < len(self.options.target_prefix):
            return []
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


def normalize_score(score: float, length: int, length_penalty: float) -> float:
    """The score per length; in the range of float32 for all lengths and penalties there may be.

    See :data:`seqserve.decoding_limit.MAX_LENGTH_PENALTY`.
    """
    return score / math.pow(length, length_penalty)


def _descending_score(hypothesis: Hypothesis) -> float:
    assert hypothesis.score is not None
    return -hypothesis.score
