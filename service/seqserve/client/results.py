"""What calls return: plain records and arrays, no protocol messages."""

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """Where the server's time for one input went, in seconds."""

    queue_seconds: float
    encode_seconds: float
    decode_seconds: float
    """0 for embeddings."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hypothesis:
    """One generated target."""

    text: str
    token_ids: tuple[int, ...]
    """With the end token if it was produced."""
    score: float | None
    """None when greedy search was not asked for it."""
    token_log_probabilities: tuple[float, ...]
    """Empty when not asked for."""
    finish_reason: Literal["eos", "length"]


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """What was generated from one input."""

    hypotheses: tuple[Hypothesis, ...]
    """Best first."""
    source_token_count: int
    truncated_token_count: int
    """Source tokens that were cut; 0 unless ``truncate`` was set."""
    timing: Timing

    @property
    def text(self) -> str:
        """The text of the best hypothesis."""
        return self.hypotheses[0].text


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """The next tokens of a streamed target."""

    text: str
    """To append; may be empty."""
    token_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The embeddings of the texts of one call, in their order."""

    vectors: NDArray[np.float32]
    """[N, M]."""
    token_counts: tuple[int, ...]
    truncated_token_counts: tuple[int, ...]
    timings: tuple[Timing, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """One token of a text."""

    token_id: int
    text: str
    start_offset: int
    """First character, in code points."""
    end_offset: int
    is_special: bool


@dataclasses.dataclass(frozen=True, slots=True)
class ModelInfo:
    """A served model; settings of tasks it lacks are None."""

    name: str
    version: str
    tasks: tuple[str, ...]
    """"generate", "embed"."""
    family: str
    dtype: str
    source: str
    max_source_length: int
    source_vocabulary_size: int
    max_inputs_per_request: int
    max_new_tokens: int | None
    """Default limit of new tokens."""
    num_beams: int | None
    """Default number of beams."""
    length_penalty: float | None
    max_target_length: int | None
    max_num_beams: int | None
    embedding_size: int | None
    pooling: str | None
    normalize: bool | None
