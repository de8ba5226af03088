"""A tiny Transformer checkpoint with random weights, for tests that need a model.

Depends on torch and seqserve_export; import it only where those are at hand.
"""

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from seqserve_export.checkpoint import (
    SOURCE_TOKENIZER_FILE,
    TARGET_TOKENIZER_FILE,
    Checkpoint,
    GenerationConfig,
    save_checkpoint,
)
from seqserve_export.transformer import Transformer
from seqserve_export.transformer_config import TransformerConfig

PAD_TOKEN_ID = 0
EOS_TOKEN_ID = 1
START_TOKEN_ID = 2
SOURCE_WORDS = tuple(string.ascii_lowercase)
TARGET_WORDS = tuple(f"{first}{second}" for first in "bdfgklmnp" for second in "aeiou")


def make_tiny_config(**switches: Any) -> TransformerConfig:
    """A configuration with two layers on each side; ``switches`` override any field."""
    sizes: dict[str, Any] = {
        "model_size": 32,
        "num_heads": 2,
        "head_size": 16,
        "feed_forward_size": 64,
        "source_vocabulary_size": 4 + len(SOURCE_WORDS),
        "target_vocabulary_size": 4 + len(TARGET_WORDS),
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "max_source_length": 40,
        "max_target_length": 32,
        "activation": "relu",
    }
    return TransformerConfig(**(sizes | switches))


def make_tiny_model(seed: int, **switches: Any) -> Transformer:
    """A model with random weights in evaluation mode.

    The weights are larger than training would begin with, so that what comes out depends on what
    goes in. How long targets get depends on the seed: with 5 and 8 and the plain configuration,
    greedy targets end at many lengths from 1 to the limit.
    """
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(make_tiny_config(**switches))
    for name, weight in model.named_parameters():
        if name.endswith("position.weight") and not weight.requires_grad:
            continue  # the sinusoidal table
        if "norm" in name:
            nn.init.normal_(weight, float(name.endswith("weight")), 0.1, generator=generator)
        elif "embedding" in name:
            nn.init.normal_(weight, 0.0, 0.5, generator=generator)
        else:
            nn.init.normal_(weight, 0.0, 0.25, generator=generator)
    with torch.no_grad():
        model.head.weight[EOS_TOKEN_ID] *= 2
    return model.eval()


def make_tiny_checkpoint(folder: Path, seed: int, **switches: Any) -> Path:
    """Writes a checkpoint folder of a tiny model, with tokenizers whose tokens are words.

    Args:
        folder: Where to write; made if absent.
        seed: Of the weights.
        switches: Fields of :class:`TransformerConfig` that differ from the tiny ones.

    Returns:
        The folder.
    """
    checkpoint = Checkpoint(
        name=f"tiny-{seed}",
        model=make_tiny_model(seed, **switches),
        generation=GenerationConfig(
            decoder_start_token_id=START_TOKEN_ID,
            eos_token_id=EOS_TOKEN_ID,
            pad_token_id=PAD_TOKEN_ID,
            max_new_tokens=24,
        ),
    )
    save_checkpoint(checkpoint, folder, dtype=torch.float32)
    _make_tokenizer(SOURCE_WORDS).save(str(folder / SOURCE_TOKENIZER_FILE))
    _make_tokenizer(TARGET_WORDS).save(str(folder / TARGET_TOKENIZER_FILE))
    return folder


def _make_tokenizer(words: tuple[str, ...]) -> Tokenizer:
    tokens = ["<pad>", "</s>", "<s>", "<unk>", *words]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens(tokens[:4])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", EOS_TOKEN_ID)]
    )
    return tokenizer
