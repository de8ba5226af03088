"""The state of one input on its way between event loop, worker, scheduler and engine.

A *request* is what a client asked for; a *sequence* is the mutable state of one of its inputs; a
*batch* is a set of sequences in one forward pass of one phase.
"""

import dataclasses
import enum
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seqserve.cache_budget import CacheExtent
from seqserve.search_state import Hypothesis, SearchState
from seqserve.sharing import Sharing


class Priority(enum.IntEnum):
    """Whose turn comes first while sequences wait; the higher goes first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


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
    first_token_seconds: float | None = None
    """From the arrival of its call to its first token; None if there was none."""
    is_cached: bool = False
    """Whether nothing was computed: the answer was kept from before."""


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """The answer to a sequence that was generated from."""

    hypotheses: list[Hypothesis]
    timing: Timing


@dataclasses.dataclass(frozen=True, slots=True)
class EncoderOutput:
    """The answer to a sequence that an encoder alone has read: embedding, or logits of a head."""

    values: NDArray[np.float32]
    """As the graph returns it: an embedding [M], not normalised, or the logits of a text [V], of
    its tokens [S, V] or of its N masks [N, V]; of a sparse embedding, what is above zero."""
    timing: Timing
    states: NDArray[np.float32] | None = None
    """Those of the tokens, [S, M], where the sequence returns them."""
    indices: NDArray[np.int32] | None = None
    """Where the values of a sparse embedding stand, ascending; None of dense ones and of logits."""


Answer = Generation | EncoderOutput


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
    call: int = 0
    """What was asked for together; calls of one caller share the caller's part."""
    lane: int | None = None
    """Which of its model's workers computes it; None: it was not handed to one yet."""
    sharing: Sharing | None = None
    """With whom it may share its answer; None: with nobody."""
    request_id: str = ""
    """Of its call, for the log."""
    arrived_at: float | None = None
    """When its call came, on the same clock; None: when it was submitted."""
    submitted_at: float
    """Seconds on the monotonic clock, as all times below."""
    started_at: float = 0.0
    encoded_at: float = 0.0
    first_token_at: float | None = None
    """When its first token behind the prefix was known, and sent if it streams."""
    finished_at: float = 0.0
    is_cached: bool = False
    """Whether its answer was kept from before; its times are then that of ``submitted_at``."""
    first_batch_rows: int = 0
    """Rows of the pass that encoded it."""
    last_batch_rows: int = 0
    """Rows of the pass that decoded its last token."""
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
        arrived_at = self.submitted_at if self.arrived_at is None else self.arrived_at
        first_token_at = self.first_token_at
        return Timing(
            queue_seconds=self.started_at - self.submitted_at,
            encode_seconds=self.encoded_at - self.started_at,
            decode_seconds=self.finished_at - self.encoded_at,
            first_token_seconds=None if first_token_at is None else first_token_at - arrived_at,
            is_cached=self.is_cached,
        )
