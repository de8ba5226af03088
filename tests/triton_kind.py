"""Both kinds of Triton's client, and what tests of them send and compare."""

from typing import Any

import numpy as np
import pytest

TEXTS = ["a b c", "c b", "d e f g h a b"]
SENTENCES = ["the cat sat on the mat", "a dog slept under the old table"]
each_kind = pytest.mark.parametrize("kind", ["sync", "aio"])


def to_float32(values: Any) -> Any:
    """Scores as tensors hold them."""
    return np.array(values, np.float32).tolist()
