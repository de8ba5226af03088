"""Search with one hypothesis: it takes the most probable token at each step, or draws one."""

from seqserve.generate_options import GenerateOptions
from seqserve.rules import TokenRules
from seqserve.search_state import (
    Candidate,
    FinishReason,
    Hypothesis,
    StopFinder,
    TokenLogProbability,
)


class GreedySearch:
    """One hypothesis, continued by its most probable token or by a drawn one."""

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
        self._stop_window = 0
        self._stop_sequence: str | None = None
        self._tokens: list[int] = []
        self._log_probabilities: list[float] = []
        self._tops: list[tuple[TokenLogProbability, ...]] = []
        self._score = 0.0
        self._finish_reason: FinishReason | None = None

    @property
    def origin(self) -> tuple[object, ...]:
        """The start token and the end token."""
        return (self._start, self._eos)

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
        """Whether the end token, a stop sequence or a limit was reached."""
        return self._finish_reason is not None

    @property
    def scores(self) -> list[float]:
        """Sum of log-probabilities, [1]."""
        return [self._score]

    @property
    def hypothesis_indices(self) -> list[int]:
        """The first and only one, [1]."""
        return [0]

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
        if len(self._tokens) <= len(self.options.target_prefix):
            return [0]
        self._log_probabilities.append(best.log_probability)
        self._tops.append(best.top)
        self._score = best.score
        if self._stops is not None:
            self._stop_sequence, self._stop_window = self._stops.find(
                self._tokens, self._stop_window
            )
        if self._stop_sequence is not None:
            self._finish_reason = FinishReason.STOP_SEQUENCE
        elif best.token == self._eos:
            self._finish_reason = FinishReason.EOS
        elif len(self._tokens) == self.options.max_length:
            self._finish_reason = FinishReason.LENGTH
        return [0]

    def stop(self, reason: FinishReason) -> None:
        """Ends with the tokens so far; a prefix that was not yet read is whole all the same."""
        self._tokens += self.options.target_prefix[len(self._tokens) :]
        self._finish_reason = reason

    def decided_tokens(self) -> list[int]:
        """All tokens, once the prefix is whole: none is ever taken back."""
        return self._tokens if len(self._tokens) >= len(self.options.target_prefix) else []

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
                stop_sequence=self._stop_sequence,
                num_prefix_tokens=len(options.target_prefix),
                tops=tuple(self._tops) if options.top_log_probability_count else (),
            )
        ]
