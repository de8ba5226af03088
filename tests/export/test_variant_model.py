"""Variants of the Transformer in torch: each attends as its name says, cached or not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seqserve.attention_kind import AttentionKind
from seqserve_export.attention_recording import recording_attention
from seqserve_export.checkpoint import load_checkpoint
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.exporter import export_model
from seqserve_export.recipes.pronunciation_batch import pad
from seqserve_export.recipes.pronunciation_model import count_parameters
from seqserve_export.transformer import Cache
from seqserve_export.variants.catalogue import CATALOGUE
from seqserve_export.variants.variant_config import VariantConfig
from seqserve_export.variants.variant_model import VariantModel
from tiny_variant import TARGET_SIZE, make_tiny_folder, make_tiny_sources, make_tiny_variant

TARGET_LENGTH = 6


def make_batch(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sources of several lengths, and a target for each."""
    sources, source_lengths = pad(make_tiny_sources(name))
    generator = torch.Generator().manual_seed(1)
    shape = (len(sources), TARGET_LENGTH)
    targets = torch.randint(4, TARGET_SIZE, shape, generator=generator)
    return sources, source_lengths, targets, torch.full_like(source_lengths, TARGET_LENGTH)


@pytest.mark.parametrize("name", CATALOGUE)
def test_cached_steps_are_those_of_whole_targets(name: str) -> None:
    """Rows of different lengths, decoded a token at a time, come to the same logits."""
    model = make_tiny_variant(name)
    sources, source_lengths, targets, target_lengths = make_batch(name)
    with torch.inference_mode():
        whole = model(sources, source_lengths, targets, target_lengths)
        source = model.decoder.project_source(model.encode(sources, source_lengths))
        shape = (len(sources), model.config.num_heads, 9, model.config.head_size)
        past: Cache = [(torch.zeros(shape), torch.zeros(shape)) for _ in source]
        for step in range(TARGET_LENGTH):
            past_lengths = torch.full_like(target_lengths, step)
            logits, past, _ = model.decode(
                targets[:, step], past_lengths, source, source_lengths, past
            )
            torch.testing.assert_close(logits, whole[:, step], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CATALOGUE)
def test_padding_and_neighbours_change_nothing(name: str) -> None:
    """A source alone comes to the same as in a batch with longer ones."""
    model = make_tiny_variant(name)
    sources, source_lengths, targets, target_lengths = make_batch(name)
    shortest = int(source_lengths.argmin())
    with torch.inference_mode():
        together = model(sources, source_lengths, targets, target_lengths)[shortest]
        row = slice(shortest, shortest + 1)
        alone = model(
            sources[row, : int(source_lengths[shortest])],
            source_lengths[row],
            targets[row],
            target_lengths[row],
        )[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CATALOGUE)
def test_all_weights_learn(name: str) -> None:
    """There is no parameter that only counts."""
    model = make_tiny_variant(name)
    model(*make_batch(name)).logsumexp(-1).sum().backward()
    for key, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, key
            # Keys have the same bias in all places, which softmax does not see.
            assert key.endswith("key.bias") or float(weight.grad.abs().max()) > 0, key


def test_variants_have_nearly_as_many_parameters() -> None:
    """Within a tenth of the Transformer's."""
    counts = {
        name: count_parameters(entry.make_model(32, 44, 64)) for name, entry in CATALOGUE.items()
    }
    for name, count in counts.items():
        assert count == pytest.approx(counts["transformer"], rel=0.1), name


def attend(name: str) -> tuple[VariantModel, dict[AttentionKind, list[Tensor]], Tensor]:
    """The weights of every kind, by layers, and the lengths of sources."""
    model = make_tiny_variant(name)
    sources, source_lengths, targets, target_lengths = make_batch(name)
    with torch.inference_mode(), recording_attention() as record:
        model(sources, source_lengths, targets, target_lengths)
    weights = iter(model.sort_attention(record, sources.shape[1]))
    return (
        model,
        {
            kind: [next(weights) for _ in range(number)]
            for kind, number in model.attention_layers.items()
        },
        source_lengths,
    )


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "recurrent"])
def test_weights_sum_to_one_and_leave_padding_out(name: str) -> None:
    """Of every head; those of the concatenation over source and target together."""
    model, weights, source_lengths = attend(name)
    if name == "concatenation":
        parts = zip(weights[AttentionKind.DECODER_SELF], weights[AttentionKind.CROSS], strict=True)
        sums = [target.sum(-1) + source.sum(-1) for target, source in parts]
    else:
        sums = [one.sum(-1) for layers in weights.values() for one in layers]
    for one in sums:
        torch.testing.assert_close(one, torch.ones_like(one))
    for layer in weights[AttentionKind.CROSS]:
        assert layer.shape[1:3] == (model.config.num_heads, TARGET_LENGTH)
        for row, length in zip(layer, source_lengths.tolist(), strict=True):
            assert not row[..., length:].any()


def test_single_head_weighs_all_values_alike() -> None:
    """In cross-attention only, where that is what the variant is about."""
    _, weights, _ = attend("single-head-cross")
    (cross,), (own,) = weights[AttentionKind.CROSS], weights[AttentionKind.DECODER_SELF]
    assert torch.equal(cross[:, 0], cross[:, 1])
    assert not torch.equal(own[:, 0], own[:, 1])


def test_location_does_not_look_at_the_source() -> None:
    """Sources of one length with other letters get the same weights at the first step."""
    model = make_tiny_variant("location")
    sources = torch.tensor([[5, 6, 7, 8], [11, 12, 13, 14]])
    lengths = torch.tensor([4, 4], dtype=torch.int32)
    starts = torch.tensor([[1], [1]])
    with torch.inference_mode(), recording_attention() as record:
        model(sources, lengths, starts, torch.ones_like(lengths))
    cross = model.sort_attention(record, 4)[-1]
    assert torch.equal(cross[0], cross[1])


def test_summary_is_all_that_is_known_of_a_source() -> None:
    """Without attention memories are equal at every place; the model has nothing to show."""
    model = make_tiny_variant("recurrent")
    sources, source_lengths, _, _ = make_batch("recurrent")
    with torch.inference_mode():
        memories = model.encode(sources, source_lengths)
    assert torch.equal(memories, memories[:, :1].expand_as(memories))
    assert not torch.equal(memories[0], memories[1])
    assert model.attention_layers == {}


def test_source_of_a_concatenation_does_not_see_the_target() -> None:
    """What is kept of it is made before there is a target, and other targets see the same."""
    model, weights, _ = attend("concatenation")
    assert model.attention_layers == {
        AttentionKind.ENCODER_SELF: 1,
        AttentionKind.DECODER_SELF: 2,
        AttentionKind.CROSS: 2,
    }
    for layer in weights[AttentionKind.DECODER_SELF]:
        assert not layer.triu(1).any()  # nor does a target token see later ones
    assert sum("cross" in name for name, _ in model.named_parameters()) == 0


REFUSALS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "recurrent encoder alone": (
        "must come together",
        {"encoder": "recurrent"},
        {},
    ),
    "recurrent with location": (
        '"additive" or "none", but is "location"',
        {"encoder": "recurrent", "decoder": "recurrent", "cross_score": "location"},
        {},
    ),
    "no attention": ('cross_score "none" is for recurrent models', {"cross_score": "none"}, {}),
    "recurrent with heads": (
        "one decoder layer with one head, but has 1 with 2",
        {"encoder": "recurrent", "decoder": "recurrent", "cross_score": "none"},
        {},
    ),
    "concatenation with an encoder": (
        "num_encoder_layers must be 0",
        {"decoder": "concatenation"},
        {},
    ),
    "concatenation with another score": (
        "must score by dot products",
        {"decoder": "concatenation", "cross_score": "additive"},
        {"num_encoder_layers": 0},
    ),
    "scale of another score": (
        "factor of dot products, but the scores are additive, dot_product",
        {"cross_score": "additive"},
        {"attention_scale": 1.0},
    ),
    "image of letters": (
        "has 4100 source tokens, but source_vocabulary_size is 31",
        {"encoder": "image"},
        {},
    ),
    "distances": (
        'positions "relative" need self-attention by dot products',
        {"self_score": "additive"},
        {"positions": "relative"},
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_parts_that_do_not_fit_are_refused(case: str) -> None:
    """The message says what does not go with what."""
    message, parts, switches = REFUSALS[case]
    config = dataclasses.replace(make_tiny_variant("transformer").config, **switches)
    with pytest.raises(ValueError, match=message):
        VariantModel(config, VariantConfig(**parts))


@pytest.mark.parametrize("name", ["concatenation", "recurrent-attention", "image"])
def test_checkpoint_keeps_the_parts(name: str, tmp_path: Path) -> None:
    """A folder read back is the same model."""
    folder = make_tiny_folder(tmp_path / "checkpoint", name)
    model, read = make_tiny_variant(name), load_checkpoint(folder).model
    batch = make_batch(name)
    with torch.inference_mode():
        assert torch.equal(model(*batch), read(*batch))


def test_checkpoint_with_unknown_parts_is_refused(tmp_path: Path) -> None:
    """The message names the file and the value."""
    folder = make_tiny_folder(tmp_path / "checkpoint", "additive")
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"additive"', '"multiplicative"'))
    with pytest.raises(CheckpointError, match=r"config.json is malformed: .*cross_score"):
        load_checkpoint(folder)


def test_variants_are_served_in_fp32_only(tmp_path: Path) -> None:
    """Other formats are refused by name."""
    folder = make_tiny_folder(tmp_path / "checkpoint", "additive")
    with pytest.raises(UnsupportedError, match=r"cannot be served in int8; supported is fp32"):
        export_model(folder, tmp_path / "store", dtype="int8")
