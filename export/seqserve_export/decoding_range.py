"""The ranges of decoding defaults: those within which the server takes them in requests, too."""

import math

from seqserve.decoding_limit import (
    MAX_LENGTH_PENALTY,
    MAX_REPETITION_PENALTY,
    MAX_TARGET_LENGTH,
    MIN_LENGTH_PENALTY,
    MIN_REPETITION_PENALTY,
)
from seqserve_export.checkpoint import GenerationConfig
from seqserve_export.errors import CheckpointError

PENALTIES = {
    "length_penalty": (MIN_LENGTH_PENALTY, MAX_LENGTH_PENALTY),
    "repetition_penalty": (MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY),
}
"""The least and the most of each penalty."""


def check_ranges(generation: GenerationConfig, max_target_length: int) -> None:
    """Checks what no table of a model bounds.

    Raises:
        CheckpointError: A value is out of range; the message names it.
    """
    if max_target_length > MAX_TARGET_LENGTH:
        raise CheckpointError(
            f"`max_target_length` must be at most {MAX_TARGET_LENGTH}, but is {max_target_length}"
        )
    for name, (low, high) in PENALTIES.items():
        value = getattr(generation, name)
        if not low <= value <= high:
            raise CheckpointError(
                f"`{name}` must be at least {low:g} and at most {high:g}, but is {value:g}"
            )
    if not 0 < generation.temperature < math.inf:
        raise CheckpointError(
            f"`temperature` must be above 0 and finite, but is {generation.temperature:g}"
        )
    if not 0 < generation.top_p <= 1:
        raise CheckpointError(f"`top_p` must be above 0 and at most 1, but is {generation.top_p:g}")
