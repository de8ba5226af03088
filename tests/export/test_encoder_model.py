"""Our encoder: what its switches require, and what each position sees."""

import math
from typing import Any

import pytest
import torch

from seqserve_export.disentangled import distance_buckets
from seqserve_export.encoder_config import AttentionScope, DisentangledConfig, EncoderConfig
from seqserve_export.encoder_model import EncoderModel

SIZES: dict[str, Any] = {
    "model_size": 32,
    "num_heads": 2,
    "head_size": 16,
    "feed_forward_size": 48,
    "vocabulary_size": 20,
    "num_layers": 2,
    "max_length": 24,
}
DISENTANGLED = DisentangledConfig(
    num_buckets=8,
    max_distance=32,
    has_content_to_position=True,
    has_position_to_content=True,
    has_own_projections=True,
    has_distance_norm=True,
)


def _encode(model: EncoderModel, tokens: list[list[int]], lengths: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        states: torch.Tensor = model(torch.tensor(tokens), torch.tensor(lengths, dtype=torch.int32))
    return states


def _make(**switches: Any) -> EncoderModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = EncoderModel(EncoderConfig(**(SIZES | switches)))
        for weight in model.parameters():
            torch.nn.init.normal_(weight, 0.0, 0.3)
    return model.eval()


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"num_token_types": -1}, "num_token_types must be at least 0, but is -1"),
        ({"max_length": 0}, "max_length must be at least 1, but is 0"),
        ({"positions": "sinusoidal"}, "positions 'learned' or 'none' .* but have 'sinusoidal'"),
        ({"is_embedding_scaled": True}, "embeddings that are not scaled, but have 'learned', True"),
        ({"scopes": (AttentionScope(),)}, "2 layers have 1 attention scopes"),
        (
            {"scopes": (AttentionScope(rotary_base=1e4),) * 2, "head_size": 8},
            "head_size must be a multiple of 16 with rotary positions, but is 8",
        ),
        ({"head_size": 12}, "head_size must be a multiple of 8, but is 12"),
    ],
)
def test_impossible_switches_are_refused(switches: dict[str, Any], message: str) -> None:
    """What the attention operator or the layers cannot do is named."""
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**(SIZES | switches))


@pytest.mark.parametrize(
    "switches",
    [
        {"positions": "none", "scopes": (AttentionScope(max_distance=3, rotary_base=1e4),) * 2},
        {"has_position_bias": True},
        {"uncounted_token": 1},
        {"disentangled": DISENTANGLED, "attention_scale": 1 / math.sqrt(48)},
        {"layer_order": (0, 1, 1, 0), "embedding_size": 24},
    ],
    ids=["scopes", "position bias", "uncounted", "disentangled", "shared layers"],
)
def test_padding_changes_nothing(switches: dict[str, Any]) -> None:
    """States of a source are the same alone and beside a longer one."""
    model = _make(**switches)
    source = [3, 1, 4, 1, 5]
    alone = _encode(model, [source], [5])
    beside = _encode(model, [source + [9] * 12, list(range(17))], [5, 17])
    torch.testing.assert_close(beside[:1, :5], alone)


def test_window_hides_what_is_far() -> None:
    """With windows of 2 positions, two layers carry what a token says no further than 4."""
    scopes = (AttentionScope(max_distance=2),) * 2
    model = _make(positions="none", scopes=scopes)
    tokens = [3] * 12
    changed = [*tokens[:6], 7, *tokens[7:]]
    before, after = (_encode(model, [row], [12])[0] for row in (tokens, changed))
    is_changed = (before != after).any(dim=1).tolist()
    assert is_changed == [2 <= position <= 10 for position in range(12)]


def test_uncounted_tokens_take_no_position() -> None:
    """The token after an uncounted one stands where it would stand without it."""
    model = _make(uncounted_token=1)
    positions = model.embedding._positions(torch.tensor([[5, 1, 6, 1, 7]]))
    assert positions.tolist() == [[2, 1, 3, 1, 4]]


def test_distances_share_buckets_the_further_they_are() -> None:
    """Near distances have a row each, far ones share; the sign mirrors them."""
    distances = torch.tensor([-40, -31, -9, -5, -4, -1, 0, 1, 4, 5, 9, 31, 40])
    buckets = distance_buckets(distances, DISENTANGLED)
    assert buckets.tolist() == [0, 1, 2, 3, 4, 7, 8, 9, 12, 13, 14, 15, 15]
    plain = DisentangledConfig(
        num_buckets=None,
        max_distance=4,
        has_content_to_position=True,
        has_position_to_content=False,
        has_own_projections=True,
        has_distance_norm=False,
    )
    assert distance_buckets(distances, plain).tolist() == [0, 0, 0, 0, 0, 3, 4, 5, 7, 7, 7, 7, 7]
