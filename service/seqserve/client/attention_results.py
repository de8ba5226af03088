"""What ``attend`` returns."""

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seqserve.client.results import Token

AttentionKind = Literal["encoder_self", "decoder_self", "cross"]
"""Source to source, target to what was read of it before, target to source."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class AttentionWeights:
    """The weights of one kind."""

    weights: NDArray[np.float32]
    """[layers, heads, rows, columns]; 1 layer or head where they were reduced."""
    layers: tuple[int, ...]
    """Those that went into the weights."""
    heads: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Attention:
    """What attends to what in one source and one target. S source tokens, T target tokens."""

    source_tokens: tuple[Token, ...]
    """S, special tokens included."""
    target_tokens: tuple[Token, ...]
    """T, with the end token if it is there; empty if there is no target."""
    decoder_input_tokens: tuple[Token, ...]
    """T: what the decoder read when it wrote each target token."""
    source_text: str
    """What offsets of source tokens are in; of a pair, the first text."""
    target_text: str
    """What offsets of target tokens are in: given or generated."""
    pair_token_index: int
    """The first source token of the second text of a pair; 0 without one."""
    truncated_token_count: int
    """Source tokens that were cut; 0 unless ``truncate`` was set."""
    seconds: float
    """What computing the weights took the server, generating not."""
    encoder_self: AttentionWeights | None
    """Rows and columns are source tokens; None where it was not asked for, as those below."""
    decoder_self: AttentionWeights | None
    """Rows are target tokens, columns decoder input tokens."""
    cross: AttentionWeights | None
    """Rows are target tokens, columns source tokens."""
