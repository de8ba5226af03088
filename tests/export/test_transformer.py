"""The torch Transformer: step by step it says what it says of whole targets."""

from typing import Any

import pytest
import torch
from torch import Tensor

from seqserve_export.transformer import Cache, Transformer
from tiny_checkpoint import make_tiny_model

SWITCHES: dict[str, dict[str, Any]] = {
    "pre-norm": {"norm_placement": "pre"},
    "post-norm": {"norm_placement": "post", "has_final_norm": False},
    "post-norm with embedding norm": {"norm_placement": "post", "has_embedding_norm": True},
    "rms norm": {"norm": "rms"},
    "learned positions": {"positions": "learned"},
    "sinusoidal positions": {"positions": "sinusoidal", "is_embedding_scaled": True},
    "relative positions": {
        "positions": "relative",
        "num_position_buckets": 8,
        "max_position_distance": 12,
    },
    "gated": {"is_gated": True, "activation": "gelu_tanh"},
    "silu": {"activation": "silu"},
    "untied head": {"has_tied_head": False, "has_head_bias": True},
    "shared embedding": {
        "has_shared_embedding": True,
        "source_vocabulary_size": 50,
        "target_vocabulary_size": 50,
    },
    "scaled head": {"head_scale": 32**-0.5},
    "unscaled attention": {"attention_scale": 1.0},
    "inner size unlike model size": {"num_heads": 3, "head_size": 8},
    "no biases": {"has_bias": False},
}


def _decode_stepwise(
    model: Transformer,
    sources: tuple[Tensor, Tensor],
    targets: Tensor,
    starts: Tensor,
) -> dict[tuple[int, int], Tensor]:
    """Feeds each row from its own start position on; returns logits by row and position."""
    config = model.config
    source_tokens, source_lengths = sources
    batch_size, num_targets = targets.shape
    source = model.decoder.project_source(model.encode(source_tokens, source_lengths))
    shape = (batch_size, config.num_heads, num_targets + 3, config.head_size)
    # Large values where nothing was written yet would show if they were read.
    past: Cache = [
        (torch.full(shape, 1e3), torch.full(shape, 1e3)) for _ in range(config.num_decoder_layers)
    ]
    logits = {}
    for step in range(num_targets + int(starts.max())):
        # A row that has not begun, or is done, repeats its first or last position.
        positions = (step - starts).clamp(0, num_targets - 1)
        tokens = targets.gather(1, positions[:, None])[:, 0]
        step_logits, past, _ = model.decode(
            tokens, positions.to(torch.int32), source, source_lengths, past
        )
        for row in range(batch_size):
            logits[row, int(positions[row])] = step_logits[row]
    return logits


@pytest.mark.parametrize("name", SWITCHES)
def test_incremental_equals_full(name: str) -> None:
    """Logits of cached steps equal those of the whole target at each position, ragged."""
    model = make_tiny_model(3, **SWITCHES[name])
    generator = torch.Generator().manual_seed(11)
    source_lengths = torch.tensor([9, 1, 6, 4], dtype=torch.int32)
    sources = torch.randint(0, model.config.source_vocabulary_size, (4, 9), generator=generator)
    targets = torch.randint(0, model.config.target_vocabulary_size, (4, 17), generator=generator)
    with torch.inference_mode():
        stepwise = _decode_stepwise(
            model, (sources, source_lengths), targets, starts=torch.tensor([0, 3, 1, 5])
        )
        for row, length in enumerate(source_lengths.tolist()):
            # Alone and unpadded: the reference cannot see padding or neighbours.
            full = model(
                sources[row : row + 1, :length],
                source_lengths[row : row + 1],
                targets[row : row + 1],
                torch.tensor([17], dtype=torch.int32),
            )[0]
            for position in range(17):
                difference = (full[position] - stepwise[row, position]).abs().max()
                assert difference < 1e-4, f"row {row}, position {position}: {difference}"


def test_targets_do_not_see_the_future() -> None:
    """Changing a later target token leaves earlier logits unchanged."""
    model = make_tiny_model(4)
    source, length = torch.tensor([[5, 6, 1]]), torch.tensor([3], dtype=torch.int32)
    targets = torch.tensor([[2, 8, 9, 10]])
    changed = targets.clone()
    changed[0, 3] = 20
    target_lengths = torch.tensor([4], dtype=torch.int32)
    with torch.inference_mode():
        before = model(source, length, targets, target_lengths)
        after = model(source, length, changed, target_lengths)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


def test_targets_depend_on_the_source() -> None:
    """Changing a source token changes the logits."""
    model = make_tiny_model(4)
    length = torch.tensor([3], dtype=torch.int32)
    targets = torch.tensor([[2, 8]]), torch.tensor([2], dtype=torch.int32)
    with torch.inference_mode():
        one = model(torch.tensor([[5, 6, 1]]), length, *targets)
        other = model(torch.tensor([[5, 7, 1]]), length, *targets)
    assert (one - other).abs().max() > 0.01
