"""The records that travel between event loop, worker, scheduler and engine.

A *request* is what a client asked for; a *sequence* is the mutable state of one of its inputs; a
*batch* is a set of sequences in one forward pass of one phase.
"""

import dataclasses
import enum
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from seqserve.cache_budget import CacheExtent, CacheResize

Phase = Literal["encode", "decode", "embed"]


class FinishReason(enum.StrEnum):
    """Why a hypothesis ended."""

    EOS = "eos"
    LENGTH = "length"
    STOP_SEQUENCE = "stop_sequence"
    TIME = "time"


class Priority(enum.IntEnum):
    """Whose turn comes first while sequences wait; the higher goes first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """How to decode one input, complete and checked."""

    max_new_tokens: int
    """At least 1; the end token counts, the prefix does not."""
    target_prefix: tuple[int, ...] = ()
    """What the target begins with, behind the start token."""
    num_beams: int = 1
    """1 is greedy search."""
    num_return_sequences: int = 1
    """At most ``num_beams``, unless hypotheses are drawn or alternatives."""
    length_penalty: float = 1.0
    """A hypothesis scores ``sum_log_probabilities / length ** length_penalty``."""
    early_stopping: bool = False
    """Beam search ends with the first ``num_beams`` finished hypotheses."""
    min_new_tokens: int = 0
    """The end token is barred before this many tokens; 0 is off."""
    no_repeat_ngram_size: int = 0
    """No n-gram of this size comes twice in a target, the start token included; 0 is off."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens the target already has less likely; 1 is off."""
    forced_bos_token_id: int | None = None
    """What every target begins with."""
    forced_eos_token_id: int | None = None
    """What a target that reaches ``max_new_tokens`` ends with."""
    suppressed_tokens: tuple[int, ...] = ()
    """Never generated, unless forced."""
    suppressed_sequences: tuple[tuple[int, ...], ...] = ()
    """Each of two tokens or more; never generated, unless forced."""
    do_sample: bool = False
    """Tokens are drawn by their probabilities; with one beam only."""
    temperature: float = 1.0
    """Divides scores before sampling; 1 is off."""
    top_k: int = 0
    """Sampling considers this many of the most probable tokens; 0 is off."""
    top_p: float = 1.0
    """Sampling considers the tokens that make up this much of the probability; 1 is off."""
    seed: int = 0
    """Where the random numbers of sampling come from."""
    stop_sequences: tuple[str, ...] = ()
    """Texts that end a hypothesis."""
    include_stop_sequence: bool = False
    """The text ends with the stop sequence, not before it."""
    return_scores: bool = False
    return_token_log_probabilities: bool = False
    max_time: float = math.inf
    """Seconds from the arrival of the request after which decoding ends with what it has."""
    top_log_probability_count: int = 0
    """Most probable tokens to report at each position; 0 is off."""
    return_alternatives: bool = False
    """Hypotheses begin with the most probable tokens, one each; with one beam only."""
    min_alternative_probability: float = 0.0
    """First tokens less probable are no alternatives; 0 is off."""

    @property
    def max_length(self) -> int:
        """Target tokens at most, the prefix included."""
        return len(self.target_prefix) + self.max_new_tokens

    @property
    def num_fixed_tokens(self) -> int:
        """Target tokens that leave no choice, from the first one on."""
        if self.target_prefix or self.forced_bos_token_id is None:
            return len(self.target_prefix)
        return 1

    @property
    def needs_log_probabilities(self) -> bool:
        """Whether the step must normalise logits; with one beam it can do without."""
        return self.num_beams > 1 or self.return_scores or self.return_token_log_probabilities


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


class Promise(Protocol):
    """The part of ``asyncio.Future`` that the worker's side reads."""

    def done(self) -> bool:
        """Whether it was answered or abandoned."""


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one sequence went, in seconds."""

    queue_seconds: float
    encode_seconds: float
    decode_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """The answer to a sequence that was generated from."""

    hypotheses: list[Hypothesis]
    timing: Timing


@dataclasses.dataclass(frozen=True, slots=True)
class EmbeddingVector:
    """The answer to a sequence that was embedded, or that a head has predicted for."""

    values: NDArray[np.float32]
    """As the graph returns it: an embedding [M], not normalised, or the logits of a text [V], of
    its tokens [S, V] or of its N masks [N, V]."""
    timing: Timing
    states: NDArray[np.float32] | None = None
    """Those of the tokens, [S, M], where the sequence returns them."""


Answer = Generation | EmbeddingVector


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One input on its way: created by a servicer, owned by the worker thread until answered."""

    source_tokens: tuple[int, ...]
    token_types: tuple[int, ...] = ()
    """Of each source token, where it is that of a pair of texts; empty means type 0."""
    future: Promise
    """Resolved on the event loop, exactly once."""
    search: SearchState | None = None
    """None for sequences to embed."""
    on_tokens: Callable[[list[int]], None] | None = None
    """Called on the event loop with newly decided tokens, for streams."""
    returns_states: bool = False
    """Whether the states of the tokens are wanted beside the embedding."""
    deadline: float = math.inf
    """Seconds on the clock of ``submitted_at``; dropped once it has passed."""
    server_limit_seconds: float | None = None
    """What the server gives to a call, where that made the deadline; None for the caller's own."""
    stop_at: float = math.inf
    """When decoding ends with what it has, on the same clock."""
    priority: Priority = Priority.NORMAL
    caller: str = ""
    """Who asked; callers share what the model can do."""
    submitted_at: float
    """Seconds on the monotonic clock, as all times below."""
    started_at: float = 0.0
    encoded_at: float = 0.0
    finished_at: float = 0.0
    rows: list[int] = dataclasses.field(default_factory=list)
    """The cache row that holds the past of each live hypothesis, [K]; scheduler only."""
    source_rows: frozenset[int] = frozenset()
    """The cache rows that hold its projected source; scheduler only."""
    row_targets: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    """The target whose past each of its cache rows holds, as far as known; scheduler only."""
    num_streamed: int = 0
    """Target tokens already handed to ``on_tokens``."""

    @property
    def source_length(self) -> int:
        """Source tokens, S."""
        return len(self.source_tokens)

    @property
    def num_rows(self) -> int:
        """Rows of the cache it needs; none for sequences to embed."""
        return 0 if self.search is None else self.search.num_rows

    @property
    def extent(self) -> CacheExtent:
        """The part of the cache it needs to reach its end."""
        if self.search is None:
            return CacheExtent(0, 0, 0)
        return CacheExtent(self.search.num_rows, self.search.options.max_length, self.source_length)

    @property
    def work(self) -> int:
        """Tokens it may cost, to share among callers: those of the source and of all rows."""
        extent = self.extent
        return self.source_length + extent.num_rows * extent.target_length

    def timing(self) -> Timing:
        """Where the time went, once finished."""
        return Timing(
            queue_seconds=self.started_at - self.submitted_at,
            encode_seconds=self.encoded_at - self.started_at,
            decode_seconds=self.finished_at - self.encoded_at,
        )


class RowCopy(NamedTuple):
    """A cache row to copy before a step. All copies of a batch happen at once."""

    source: int
    target: int
    target_length: int
    """Valid self-attention positions."""
    source_length: int
    """Valid cross-attention positions; 0 when the target row holds the same source already."""
    first_position: int = 0
    """Self-attention positions before it are the same in both rows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Sequences for one forward pass of one phase."""

    phase: Phase
    sequences: list[Sequence]
    copies: list[RowCopy] = dataclasses.field(default_factory=list)
    """To apply to the cache first."""
    resize: CacheResize | None = None
    """What the cache becomes then, if it must change."""

    @property
    def num_rows(self) -> int:
        """Rows of the forward pass, B."""
        if self.phase == "decode":
            return sum(sequence.num_rows for sequence in self.sequences)
        return len(self.sequences)

    @property
    def padded_tokens(self) -> int:
        """Source tokens the pass computes, padding included."""
        return len(self.sequences) * max(sequence.source_length for sequence in self.sequences)


class EmbeddingWithStates(NamedTuple):
    """An embedding, and the states of the tokens it was made of."""

    values: NDArray[np.float32]
    states: NDArray[np.float32]
    """[S, M]."""


Outcome = list[Candidate] | NDArray[np.float32] | EmbeddingWithStates | Exception | None
"""What the engine returns for one sequence: candidates (decode), a vector or logits, perhaps with
states (embed), nothing (encode), or the fault of this sequence alone."""


def to_embedding(
    outcome: NDArray[np.float32] | EmbeddingWithStates, timing: Timing
) -> EmbeddingVector:
    """The answer to a sequence that was embedded or predicted for."""
    if isinstance(outcome, EmbeddingWithStates):
        return EmbeddingVector(outcome.values, timing, outcome.states)
    return EmbeddingVector(outcome, timing)
