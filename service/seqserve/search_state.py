"""What a search is to those who drive it, and the records that pass between them.

A search is the state of one input that is decoded: greedy, beams, independent hypotheses, or given
targets to score. :func:`seqserve.search.make_search` makes one.
"""

import dataclasses
import enum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from seqserve.generate_options import GenerateOptions


class FinishReason(enum.StrEnum):
    """Why a hypothesis ended."""

    EOS = "eos"
    LENGTH = "length"
    STOP_SEQUENCE = "stop_sequence"
    TIME = "time"


class TokenLogProbability(NamedTuple):
    """A token that might have been taken."""

    token: int
    log_probability: float
    """By the model, before any rule."""


class Candidate(NamedTuple):
    """One way to continue a live hypothesis."""

    parent: int
    """Index of the live hypothesis it continues."""
    token: int
    score: float
    """Sum of log-probabilities with this token; 0 when nobody asked for log-probabilities."""
    log_probability: float
    """Of this token alone; 0 when nobody asked."""
    top: tuple[TokenLogProbability, ...] = ()
    """The most probable tokens in its place, best first; empty when nobody asked."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hypothesis:
    """One finished target."""

    tokens: tuple[int, ...]
    """Without the start token; with the prefix, and the end token if it was produced."""
    score: float | None
    """None when one beam was not asked for it."""
    log_probabilities: tuple[float, ...] | None
    """Of each token behind the prefix; None when not asked for."""
    finish_reason: FinishReason
    num_prefix_tokens: int = 0
    tops: tuple[tuple[TokenLogProbability, ...], ...] = ()
    """The most probable tokens in place of each behind the prefix; empty when not asked for."""
    stop_sequence: str | None = None
    """What ended it, if a stop sequence did."""


class StopFinder(Protocol):
    """Looks at the text of targets for the searches; ``stop_sequences`` implements it."""

    def find(self, tokens: list[int], window_start: int) -> tuple[str | None, int]:
        """The stop sequence that the newest of all tokens [T] completed, or None.

        With it comes a number that the next call for this target must bring; 0 at first.
        """


class TokenRules(Protocol):
    """What the options of a sequence say about single tokens; ``rules`` implements it."""

    is_active: bool
    """Whether any rule can change a score."""

    @property
    def is_penalizing(self) -> bool:
        """Whether scores of allowed tokens change, too."""

    def barred_tokens(self, target: list[int]) -> list[int]:
        """The tokens that may not follow a target, unless one of them is forced."""

    def forced_token(self, target: list[int]) -> int | None:
        """The only token that may follow a target, or None when there is a choice."""

    def apply(self, scores: NDArray[np.float32], target: list[int]) -> None:
        """Changes scores [V] of the token that follows a target, in place."""


class SearchState(Protocol):
    """The hypotheses of one sequence; ``search`` makes one of several kinds."""

    options: GenerateOptions

    @property
    def rules(self) -> TokenRules:
        """What the options say about single tokens."""

    @property
    def origin(self) -> tuple[object, ...]:
        """What decides, beside the options and the source, to which hypotheses it comes."""

    @property
    def num_rows(self) -> int:
        """Rows of the batch the live hypotheses take: K."""

    @property
    def target_length(self) -> int:
        """Tokens every live hypothesis has so far, the start token not counted."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be decoded."""

    @property
    def scores(self) -> list[float]:
        """Sum of log-probabilities of each live hypothesis, [K]."""

    @property
    def hypothesis_indices(self) -> list[int]:
        """Which of the hypotheses of the sequence each row holds, [K]."""

    def next_inputs(self) -> list[int]:
        """The token each live hypothesis feeds to the next step, [K]."""

    def targets(self) -> list[list[int]]:
        """The tokens of each live hypothesis, without the start token, [K]."""

    def advance(self, candidates: list[Candidate]) -> list[int]:
        """Continues with the chosen candidates (best first); returns the parent of each row."""

    def stop(self, reason: FinishReason) -> None:
        """Ends with what there is: live hypotheses finish as they are."""

    def decided_tokens(self) -> list[int]:
        """The target tokens that no later step can change."""

    def hypotheses(self) -> list[Hypothesis]:
        """The finished hypotheses asked for, best first."""
