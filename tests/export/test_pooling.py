"""Pooling takes valid positions only."""

import pytest
import torch

from seqserve_export.pooling import Pooling, PoolingMode, normalize

STATES = torch.tensor(
    [[[1.0, 2.0], [3.0, 6.0], [99.0, -99.0]], [[4.0, 4.0], [5.0, 0.0], [3.0, 2.0]]]
)
LENGTHS = torch.tensor([2, 3], dtype=torch.int32)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("mean", [[2.0, 4.0], [4.0, 2.0]]), ("cls", [[1.0, 2.0], [4.0, 4.0]])],
)
def test_padding_is_left_out(mode: PoolingMode, expected: list[list[float]]) -> None:
    """The mean is over valid positions, cls is the first one."""
    assert Pooling(mode)(STATES, LENGTHS).tolist() == expected


def test_padding_may_hold_anything() -> None:
    """NaN behind the end of a source does not reach the mean."""
    states = STATES.clone()
    states[0, 2] = torch.nan
    assert Pooling("mean")(states, LENGTHS)[0].tolist() == [2.0, 4.0]


def test_normalized_embeddings_have_length_one() -> None:
    """Embeddings are scaled to length 1; zero stays zero."""
    assert normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0.0, 0.0],
    ]
