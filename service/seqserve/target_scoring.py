"""Targets that are given instead of searched for: one state that feeds them token by token.

It takes part in the running batch as any search does, one row for each target of a source, and
gives rows back as targets end. So results are those of any batch, and no graph is needed for it.
"""

from collections.abc import Sequence as Items

from seqserve.generate_options import GenerateOptions
from seqserve.rules import TokenRules
from seqserve.search_state import Candidate, FinishReason, Hypothesis


class TargetScoring:
    """The given targets of one source; K of them are not at their end yet."""

    def __init__(
        self, targets: Items[tuple[int, ...]], decoder_start_token_id: int, eos_token_id: int
    ) -> None:
        """Takes the targets.

        Args:
            targets: Without the start token; none is empty.
            decoder_start_token_id: What each is fed after.
            eos_token_id: What tells whole targets from cut ones.
        """
        self._targets = targets
        # Longest first, so that those still going on are always the first rows.
        self._order = sorted(range(len(targets)), key=lambda index: -len(targets[index]))
        self._log_probabilities: list[list[float]] = [[] for _ in targets]
        self._totals = [0.0] * len(targets)
        self._start = decoder_start_token_id
        self._eos = eos_token_id
        self._length = 0
        self.options = GenerateOptions(
            max_new_tokens=max(map(len, targets)),
            min_new_tokens=max(map(len, targets)),
            return_scores=True,
            return_token_log_probabilities=True,
        )
        self.rules = TokenRules(self.options, decoder_start_token_id, eos_token_id)

    @property
    def origin(self) -> tuple[object, ...]:
        """The targets, after the start token and the end token."""
        return (self._start, self._eos, *self._targets)

    @property
    def num_rows(self) -> int:
        """Targets that go on, K."""
        return len(self._going_on())

    @property
    def target_length(self) -> int:
        """Tokens of each that are scored."""
        return self._length

    @property
    def is_finished(self) -> bool:
        """Whether all tokens are scored."""
        return self._length == self.options.max_new_tokens

    @property
    def scores(self) -> list[float]:
        """Sum of log-probabilities so far, [K]."""
        return [self._totals[index] for index in self._going_on()]

    @property
    def hypothesis_indices(self) -> list[int]:
        """Which of the given targets each row holds, [K]."""
        return self._going_on()

    def next_inputs(self) -> list[int]:
        """The newest scored token of each, or the start token, [K]."""
        if self._length == 0:
            return [self._start] * self.num_rows
        return [self._targets[index][self._length - 1] for index in self._going_on()]

    def next_tokens(self) -> list[int]:
        """The token of each that is to be scored next, [K]."""
        return [self._targets[index][self._length] for index in self._going_on()]

    def targets(self) -> list[list[int]]:
        """The scored tokens of each, [K]."""
        return [list(self._targets[index][: self._length]) for index in self._going_on()]

    def advance(self, candidates: list[Candidate]) -> list[int]:
        """Takes the score of each next token; rows of targets that ended are the last ones."""
        for index, candidate in zip(self._going_on(), candidates, strict=True):
            self._log_probabilities[index].append(candidate.log_probability)
            self._totals[index] = candidate.score
        self._length += 1
        return list(range(self.num_rows))

    def stop(self, reason: FinishReason) -> None:
        """Never asked for: scores have no time limit of their own."""
        raise NotImplementedError

    def decided_tokens(self) -> list[int]:
        """None: nothing is generated."""
        return []

    def hypotheses(self) -> list[Hypothesis]:
        """All targets, in the order in which they were given."""
        return [
            Hypothesis(
                tokens=target,
                score=total,
                log_probabilities=tuple(log_probabilities),
                finish_reason=(
                    FinishReason.EOS if target[-1] == self._eos else FinishReason.LENGTH
                ),
            )
            for target, total, log_probabilities in zip(
                self._targets, self._totals, self._log_probabilities, strict=True
            )
        ]

    def _going_on(self) -> list[int]:
        return [index for index in self._order if len(self._targets[index]) > self._length]
