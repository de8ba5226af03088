"""Embeddings of length 1, whatever the length of the vector."""

import numpy as np
import pytest

from seqserve.servicers.embedding_shape import scale
from seqserve.v1 import encoding_pb2


def normalize(values: list[float]) -> list[float]:
    """The numbers of the message for a vector."""
    scaled = scale(np.array(values, np.float32), is_normalized=True)
    return list(encoding_pb2.Embedding(values=scaled.tolist()).values)


@pytest.mark.parametrize("scale", [1e-11, 1e-6, 1.0, 1e19, 1e20, 3e37])
def test_direction_is_kept_at_every_length(scale: float) -> None:
    """In float32 squares overflow from about 1e19, and large vectors became zeros."""
    np.testing.assert_allclose(normalize([3 * scale, -4 * scale]), [0.6, -0.8], rtol=1e-6)


def test_floor_is_that_of_torch() -> None:
    """Vectors shorter than 1e-12 are divided by it, so that zeros stay zeros."""
    assert normalize([0.0, 0.0]) == [0.0, 0.0]
    np.testing.assert_allclose(normalize([3e-13, 4e-13]), [0.3, 0.4], rtol=1e-6)


def test_vectors_are_untouched_unless_asked() -> None:
    """The graph's own numbers, to the last bit."""
    numbers = np.array([0.1, 1e-30, 3e38], np.float32)
    scaled = scale(numbers, is_normalized=False)
    message = encoding_pb2.Embedding(values=scaled.tolist())
    assert np.array_equal(np.array(message.values, np.float32), numbers)
