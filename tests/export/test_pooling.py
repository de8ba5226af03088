"""Pooling takes valid positions only."""

import pytest
import torch

from seqserve_export.pooling import POOLING_MODES, Pooling, PoolingMode, normalize

STATES = torch.tensor(
    [[[1.0, 2.0], [3.0, 6.0], [99.0, -99.0]], [[4.0, 4.0], [5.0, 0.0], [3.0, 2.0]]]
)
LENGTHS = torch.tensor([2, 3], dtype=torch.int32)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mean", [[2.0, 4.0], [4.0, 2.0]]),
        ("mean_sqrt_len_tokens", [[4.0 / 2**0.5, 8.0 / 2**0.5], [12.0 / 3**0.5, 6.0 / 3**0.5]]),
        ("weightedmean", [[7.0 / 3.0, 14.0 / 3.0], [23.0 / 6.0, 10.0 / 6.0]]),
        ("max", [[3.0, 6.0], [5.0, 4.0]]),
        ("cls", [[1.0, 2.0], [4.0, 4.0]]),
        ("lasttoken", [[3.0, 6.0], [3.0, 2.0]]),
    ],
)
def test_padding_is_left_out(mode: PoolingMode, expected: list[list[float]]) -> None:
    """Every mode is over valid positions alone."""
    torch.testing.assert_close(Pooling(mode)(STATES, LENGTHS), torch.tensor(expected))


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_padding_may_hold_anything(mode: PoolingMode) -> None:
    """NaN behind the end of a source does not reach its vector."""
    states = STATES.clone()
    states[0, 2] = torch.nan
    assert torch.equal(Pooling(mode)(states, LENGTHS), Pooling(mode)(STATES, LENGTHS))


def test_several_modes_are_joined() -> None:
    """Vectors stand one after another, in the order of the modes."""
    assert Pooling("cls", "mean")(STATES, LENGTHS)[0].tolist() == [1.0, 2.0, 2.0, 4.0]


def test_normalized_embeddings_have_length_one() -> None:
    """Embeddings are scaled to length 1; zero stays zero."""
    assert normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0.0, 0.0],
    ]
