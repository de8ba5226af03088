"""What decoding options say about single tokens: forced, barred, or made less likely.

The rules see one live hypothesis at a time and change its scores before tokens are picked. They
depend on its own tokens only, never on other rows of the batch.

Source: the logits processors of ``transformers`` 5 (``generation/logits_process.py``), applied in
the order of ``GenerationMixin._get_logits_processor``: repetition penalty, no-repeat n-grams,
suppressed sequences, minimum length, forced first and last token. Barred scores become minus
infinity and are not normalised again.
"""

import math

import numpy as np
from numpy.typing import NDArray

from seqserve.generate_options import GenerateOptions


class TokenRules:
    """The rules of one sequence. Scores are logits or log-probabilities [V] of one hypothesis."""

    def __init__(
        self, options: GenerateOptions, decoder_start_token_id: int, eos_token_id: int
    ) -> None:
        self._options = options
        self._start = decoder_start_token_id
        self._eos = eos_token_id
        self.is_active = bool(
            options.suppressed_tokens
            or options.suppressed_sequences
            or options.min_new_tokens
            or options.no_repeat_ngram_size
            or options.repetition_penalty != 1.0
            or options.forced_bos_token_id is not None
            or options.forced_eos_token_id is not None
        )
        """Whether any rule can change a score; most requests have none."""
        self._endings: dict[tuple[int, ...], list[int]] = {}
        """The tokens that would complete a suppressed sequence, by the others before them."""
        for *others, last in options.suppressed_sequences:
            self._endings.setdefault(tuple(others), []).append(last)
        self._ending_lengths = sorted({len(others) for others in self._endings})

    @property
    def is_penalizing(self) -> bool:
        """Whether scores of allowed tokens change, too."""
        return self._options.repetition_penalty != 1.0

    def forced_token(self, target: list[int]) -> int | None:
        """The only token that may follow a target, or None when there is a choice."""
        options = self._options
        if len(target) == options.max_length - 1 and options.forced_eos_token_id is not None:
            return options.forced_eos_token_id
        if not target:
            return options.forced_bos_token_id
        return None

    def apply(self, scores: NDArray[np.float32], target: list[int]) -> None:
        """Changes scores [V] of the token that follows a target, in place.

        NOTE: a forced token scores 0, as if it were certain, whatever the model thinks of it.
        """
        forced = self.forced_token(target)
        if forced is not None:
            scores[:] = -math.inf
            scores[forced] = 0.0
            return
        if self.is_penalizing:
            self._penalize(scores, target)
        scores[self.barred_tokens(target)] = -math.inf

    def barred_tokens(self, target: list[int]) -> list[int]:
        """The tokens that may not follow a target, unless one of them is forced."""
        barred = list(self._options.suppressed_tokens)
        for length in self._ending_lengths:
            barred += self._endings.get(tuple(target[-length:]), [])
        if self._options.no_repeat_ngram_size:
            barred += self._repeating_tokens(target)
        if len(target) < len(self._options.target_prefix) + self._options.min_new_tokens:
            barred.append(self._eos)
        return barred

    def _penalize(self, scores: NDArray[np.float32], target: list[int]) -> None:
        """Lowers the scores of the start token and of all tokens of the target.

        Source: Keskar et al. 2019, arXiv:1909.05858, section 4.1; negative scores are multiplied,
        so that the penalty never rewards.
        """
        seen = np.unique(np.array([self._start, *target], np.int64))
        penalty = np.float32(self._options.repetition_penalty)
        values = scores[seen]
        scores[seen] = np.where(values < 0, values * penalty, values / penalty)

    def _repeating_tokens(self, target: list[int]) -> list[int]:
        """Tokens that would complete an n-gram the target already has.

        Source: Paulus et al. 2017, arXiv:1705.04304, section 2.5.
        """
        size = self._options.no_repeat_ngram_size
        tokens = [self._start, *target]
        context = tokens[len(tokens) - size + 1 :]
        return [
            tokens[index + size - 1]
            for index in range(len(tokens) - size + 1)
            if tokens[index : index + size - 1] == context
        ]
