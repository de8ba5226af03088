"""Torch equals ONNX for models that differ in as many switches as possible."""

from pathlib import Path
from typing import Any

import pytest

from seqserve.manifest import Manifest, read_manifest
from seqserve_export.exporter import export_model
from tiny_checkpoint import make_tiny_checkpoint

LIKE_T5: dict[str, Any] = {
    "norm": "rms",
    "positions": "relative",
    "num_position_buckets": 8,
    "max_position_distance": 12,
    "attention_scale": 1.0,
    "has_bias": False,
    "is_gated": True,
    "activation": "gelu_tanh",
    "num_heads": 3,
    "head_size": 8,
    "has_shared_embedding": True,
    "source_vocabulary_size": 50,
    "target_vocabulary_size": 50,
    "head_scale": 32**-0.5,
}
LIKE_MARIAN: dict[str, Any] = {
    "norm_placement": "post",
    "has_final_norm": False,
    "positions": "sinusoidal",
    "is_embedding_scaled": True,
    "activation": "silu",
    "has_head_bias": True,
    "num_encoder_layers": 1,
}
LIKE_BART: dict[str, Any] = {
    "norm_placement": "post",
    "has_final_norm": False,
    "has_embedding_norm": True,
    "activation": "gelu",
    "has_tied_head": False,
    "num_decoder_layers": 1,
}


def _check(manifest: Manifest) -> None:
    """Every comparison was made, and within its tolerance."""
    checks = " | ".join(record.check for record in manifest.verification)
    for part in ("encode: torch", "decode: torch", "alone", "greedy search", "beam search with 4"):
        assert part in checks
    for record in manifest.verification:
        assert record.count >= 12
        assert record.max_abs_difference <= record.tolerance <= 1e-4


@pytest.mark.parametrize(
    "switches",
    [LIKE_T5, LIKE_MARIAN, LIKE_BART],
    ids=["like T5", "like Marian", "like BART"],
)
def test_torch_equals_onnx(switches: dict[str, Any], tmp_path: Path) -> None:
    """Export verifies encoding, every step and both searches, and finds bit-identical rows."""
    folder = make_tiny_checkpoint(tmp_path / "checkpoint", 5, **switches)
    report = export_model(folder, tmp_path / "store")
    _check(report.manifest)
    assert report.manifest.is_batch_invariant


def test_manifest_describes_the_model(tiny_store: Path) -> None:
    """The manifest reads back, complete, and says what the checkpoint says."""
    manifest = read_manifest(tiny_store / "tiny" / "1")
    _check(manifest)
    assert manifest.is_batch_invariant
    assert manifest.family == "transformer"
    assert (manifest.source_vocabulary_size, manifest.max_source_length) == (30, 40)
    generation = manifest.generation
    assert generation is not None
    assert (generation.num_layers, generation.num_heads, generation.head_size) == (2, 2, 16)
    assert generation.target_tokenizer == "target_tokenizer.json"
    assert (generation.target_vocabulary_size, generation.max_target_length) == (49, 32)
    assert generation.max_new_tokens == 24
    assert manifest.provenance.source == "tiny"
    assert set(manifest.provenance.libraries) == {"torch", "onnx", "onnxruntime"}
    assert set(manifest.files) == {
        "encode.onnx",
        "decode.onnx",
        "rank.onnx",
        "tokenizer.json",
        "target_tokenizer.json",
        "weights.data",
    }
