"""Tiny variants of the Transformer with random weights, as models and as checkpoint folders.

Depends on torch and seqserve_export; import it only where those are at hand.
"""

import dataclasses
import random
from pathlib import Path

import torch
from torch import nn

from seqserve_export.checkpoint import Checkpoint, GenerationConfig, save_checkpoint
from seqserve_export.recipes.comparison_task import make_column_tokenizer
from seqserve_export.recipes.pronunciation_tokenizer import (
    END_ID,
    PAD_ID,
    START_ID,
    make_source_tokenizer,
    make_target_tokenizer,
)
from seqserve_export.variants.catalogue import CATALOGUE
from seqserve_export.variants.lettering import LETTERS, render, to_text, to_tokens
from seqserve_export.variants.variant_model import VariantModel

TARGET_SIZE = 4 + len(LETTERS)
_SOURCE_LENGTH, _TARGET_LENGTH = 12, 10
_IMAGE_LENGTH = 24
_SAMPLES = ("abate", "zoo", "quick", "vex")
_IMAGE_WORDS = ("ab", "so", "my")


def make_tiny_variant(name: str, seed: int = 3) -> VariantModel:
    """A model of the catalogue in a small size, in evaluation mode."""
    torch.manual_seed(seed)
    entry = CATALOGUE[name]
    config = entry.make_model(31, TARGET_SIZE, 64).config
    is_recurrent = entry.variant.decoder == "recurrent"
    num_heads = min(2, config.num_heads)
    config = dataclasses.replace(
        config,
        model_size=16,
        num_heads=num_heads,
        head_size=24 if is_recurrent else 16 // num_heads,
        feed_forward_size=24,
        num_encoder_layers=min(2 if entry.is_image else 1, config.num_encoder_layers),
        num_decoder_layers=2 if entry.variant.decoder == "concatenation" else 1,
        max_source_length=_IMAGE_LENGTH if entry.is_image else _SOURCE_LENGTH,
        max_target_length=_TARGET_LENGTH,
    )
    model = VariantModel(config, entry.variant)
    for key, weight in model.named_parameters():
        if weight.requires_grad and "norm" not in key:
            nn.init.normal_(weight, 0.0, 0.5 if "embedding" in key else 0.3)
    with torch.no_grad():
        model.head.weight[END_ID] *= 1.5
    return model.eval()


def make_tiny_sources(name: str) -> list[list[int]]:
    """Sources of several lengths, as tokens."""
    if CATALOGUE[name].is_image:
        return [to_tokens(columns) for columns in _render()]
    return [make_source_tokenizer().encode(text).ids for text in _SAMPLES]


def make_tiny_folder(folder: Path, name: str) -> Path:
    """Writes a checkpoint folder of a tiny variant."""
    is_image = CATALOGUE[name].is_image
    generation = GenerationConfig(
        decoder_start_token_id=START_ID,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        max_new_tokens=_TARGET_LENGTH,
    )
    checkpoint = Checkpoint(name=name, model=make_tiny_variant(name), generation=generation)
    save_checkpoint(checkpoint, folder, dtype=torch.float32)
    source = make_column_tokenizer() if is_image else make_source_tokenizer()
    source.save(str(folder / "tokenizer.json"))
    make_target_tokenizer([*LETTERS]).save(str(folder / "target_tokenizer.json"))
    samples = [to_text(columns) for columns in _render()] if is_image else list(_SAMPLES)
    (folder / "samples.txt").write_text("\n".join(samples) + "\n", encoding="utf-8")
    return folder


def _render() -> list[list[int]]:
    generator = random.Random(1)
    return [render(word, generator) for word in _IMAGE_WORDS]
