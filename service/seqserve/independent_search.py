"""Several hypotheses of one sequence that do not compete: each is decoded to its own end."""

from collections.abc import Sequence as Items

from seqserve.generate_options import GenerateOptions
from seqserve.rules import TokenRules
from seqserve.search_state import Candidate, FinishReason, Hypothesis, SearchState


class IndependentSearch:
    """N searches of one hypothesis each, side by side; one that ends leaves its row."""

    def __init__(
        self, options: GenerateOptions, rules: TokenRules, parts: Items[SearchState]
    ) -> None:
        self.options = options
        self.rules = rules
        self._parts = parts
        self._live = list(range(len(parts)))

    @property
    def origin(self) -> tuple[object, ...]:
        """That of each part."""
        return tuple(part.origin for part in self._parts)

    @property
    def num_rows(self) -> int:
        """One row for each hypothesis that has not ended."""
        return len(self._live)

    @property
    def target_length(self) -> int:
        """Tokens each live hypothesis has so far."""
        return max(part.target_length for part in self._parts)

    @property
    def is_finished(self) -> bool:
        """Whether all hypotheses have ended."""
        return not self._live

    @property
    def scores(self) -> list[float]:
        """Sum of log-probabilities of each live hypothesis."""
        return [score for index in self._live for score in self._parts[index].scores]

    @property
    def hypothesis_indices(self) -> list[int]:
        """Which of the N hypotheses each row holds."""
        return self._live

    def next_inputs(self) -> list[int]:
        """The newest token of each live hypothesis, or the start token."""
        return [token for index in self._live for token in self._parts[index].next_inputs()]

    def targets(self) -> list[list[int]]:
        """The tokens of each live hypothesis."""
        return [target for index in self._live for target in self._parts[index].targets()]

    def advance(self, candidates: list[Candidate]) -> list[int]:
        """Continues each live hypothesis with its own candidate; those without one are gone."""
        parents: list[int] = []
        live: list[int] = []
        for candidate in candidates:
            index = self._live[candidate.parent]
            self._parts[index].advance([candidate])
            if not self._parts[index].is_finished:
                parents.append(candidate.parent)
                live.append(index)
        self._live = live
        return parents

    def stop(self, reason: FinishReason) -> None:
        """Ends with the tokens that each live hypothesis has."""
        for index in self._live:
            self._parts[index].stop(reason)
        self._live = []

    def decided_tokens(self) -> list[int]:
        """All tokens of the first hypothesis."""
        return self._parts[0].decided_tokens()

    def hypotheses(self) -> list[Hypothesis]:
        """All of them, in their order; each once where they are alternatives.

        Alternatives that were never begun are missing, and all are one if every token was forced.
        """
        ended = [part for part in self._parts if part.is_finished]
        found = [hypothesis for part in ended for hypothesis in part.hypotheses()]
        return list(dict.fromkeys(found)) if self.options.return_alternatives else found
