"""One forward pass: which sequences, which rows to move first, and what comes out."""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqserve.cache_budget import CacheResize
from seqserve.search_state import Candidate
from seqserve.sequence import EncoderOutput, Sequence, Timing
from seqserve.sparse_vector import SparseVector

Phase = Literal["encode", "decode", "embed"]


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

    vector: NDArray[np.float32] | SparseVector
    states: NDArray[np.float32]
    """[S, M]."""


Outcome = (
    list[Candidate] | NDArray[np.float32] | SparseVector | EmbeddingWithStates | Exception | None
)
"""What the engine returns for one sequence: candidates (decode), a vector or logits, perhaps with
states (embed), nothing (encode), or the fault of this sequence alone."""


def to_encoder_output(
    outcome: NDArray[np.float32] | SparseVector | EmbeddingWithStates, timing: Timing
) -> EncoderOutput:
    """The answer to a sequence that was embedded or predicted for."""
    states = None
    if isinstance(outcome, EmbeddingWithStates):
        outcome, states = outcome
    if isinstance(outcome, SparseVector):
        return EncoderOutput(outcome.values, timing, states, outcome.indices)
    return EncoderOutput(outcome, timing, states)
