"""What calls return: plain records and arrays, no protocol messages."""

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FinishReason = Literal["eos", "length", "stop_sequence", "time"]
"""Why a hypothesis ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """Where the server's time for one input went, in seconds."""

    queue_seconds: float
    encode_seconds: float
    decode_seconds: float
    """0 for embeddings."""
    is_cached: bool = False
    """Whether the answer was kept from an equal input: nothing was computed for this one."""


@dataclasses.dataclass(frozen=True, slots=True)
class TokenLogProbability:
    """A token and how likely the model finds it."""

    token_id: int
    piece: str
    """The vocabulary entry."""
    log_probability: float


@dataclasses.dataclass(frozen=True, slots=True)
class Hypothesis:
    """One generated target."""

    text: str
    token_ids: tuple[int, ...]
    """All that were produced, with the target prefix, the end token and a stop sequence."""
    score: float | None
    """None when one beam was not asked for it."""
    token_log_probabilities: tuple[float, ...]
    """Of the tokens behind the target prefix; empty when not asked for."""
    finish_reason: FinishReason
    prefix_token_count: int = 0
    """How many of ``token_ids`` are the target prefix."""
    top_log_probabilities: tuple[tuple[TokenLogProbability, ...], ...] = ()
    """The most probable tokens in place of each behind the prefix; empty when not asked for."""
    stop_sequence: str = ""
    """What ended it, if a stop sequence did."""
    alignment: "Alignment | None" = None
    """What its tokens came from; None when not asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """What was generated from one input."""

    hypotheses: tuple[Hypothesis, ...]
    """Best first; drawn ones in the order of drawing."""
    source_token_count: int
    truncated_token_count: int
    """Source tokens that were cut; 0 unless ``truncate`` was set."""
    timing: Timing
    seed: int | None
    """With which hypotheses were drawn; None if they were not."""

    @property
    def text(self) -> str:
        """The text of the first hypothesis."""
        return self.hypotheses[0].text


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """The next tokens of a streamed target."""

    text: str
    """To append; may be empty."""
    token_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ScoredToken:
    """One token of a given target."""

    token_id: int
    text: str
    """The vocabulary entry."""
    log_probability: float


@dataclasses.dataclass(frozen=True, slots=True)
class TargetScore:
    """How probable one given target is."""

    tokens: tuple[ScoredToken, ...]
    """With those that the server added to a text."""
    total_log_probability: float
    mean_log_probability: float
    """The total over the number of tokens."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scoring:
    """The scores of the targets of one input."""

    scores: tuple[TargetScore, ...]
    """In the order of the targets."""
    source_token_count: int
    truncated_token_count: int
    """Source tokens that were cut; 0 unless ``truncate`` was set."""
    timing: Timing


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """One token of a text."""

    token_id: int
    text: str
    start_offset: int
    """First character, in code points."""
    end_offset: int
    is_special: bool


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """What each token of a target came from."""

    source_tokens: tuple[Token, ...]
    """S, special tokens included."""
    target_tokens: tuple[Token, ...]
    """T, the same as the ``token_ids`` of the hypothesis."""
    source_indices: tuple[int, ...]
    """T: the one source token of each target token; -1 for special target tokens."""
    weights: NDArray[np.float32]
    """[T, S]: how much of each target token came from each source token."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """A weight for each entry of the vocabulary: those above 0."""

    indices: NDArray[np.int32]
    """Ids of tokens, ascending, [N]."""
    values: NDArray[np.float32]
    """[N]"""
    tokens: tuple[str, ...] = ()
    """Entries of the vocabulary, N; empty when not asked for."""

    def to_dense(self, size: int) -> NDArray[np.float32]:
        """The vector with its zeros, [size]; ``embedding_size`` has room for all."""
        dense = np.zeros(size, np.float32)
        dense[self.indices] = self.values
        return dense


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EmbeddingWindow:
    """The embedding of a part of a text."""

    vector: NDArray[np.float32]
    """[M]; empty of sparse embeddings."""
    start_offset: int
    """First character, in code points."""
    end_offset: int
    token_count: int
    sparse: SparseVector | None = None
    """None of dense embeddings."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TokenEmbeddings:
    """The states of the tokens of one text."""

    tokens: tuple[Token, ...]
    vectors: NDArray[np.float32]
    """[S, M]"""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The embeddings of the texts of one call, in their order."""

    vectors: NDArray[np.float32]
    """[N, M]; [N, 0] of sparse embeddings."""
    token_counts: tuple[int, ...]
    truncated_token_counts: tuple[int, ...]
    timings: tuple[Timing, ...]
    windows: tuple[tuple[EmbeddingWindow, ...], ...] = ()
    """Those of each text; empty when not asked for."""
    token_embeddings: tuple[TokenEmbeddings, ...] = ()
    """Those of each text; empty when not asked for."""
    sparse: tuple[SparseVector, ...] = ()
    """The vector of each text, N; empty of dense embeddings."""
