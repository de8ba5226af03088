"""Trains the shipped default model: English spelling to phonemes, from CMUdict.

``python -m seqserve_export.recipes.g2p --help`` lists the options. The defaults are those of the
shipped model.
"""

from pathlib import Path

import click
import torch
from rich.console import Console
from torch import nn

from seqserve_export.checkpoint import (
    SOURCE_TOKENIZER_FILE,
    TARGET_TOKENIZER_FILE,
    Checkpoint,
    GenerationConfig,
    load_checkpoint,
    save_checkpoint,
)
from seqserve_export.recipes.evaluation import evaluate
from seqserve_export.recipes.pronunciation_batch import make_examples
from seqserve_export.recipes.pronunciation_data import list_phonemes, read_dictionary, split_words
from seqserve_export.recipes.pronunciation_tokenizer import (
    END_ID,
    PAD_ID,
    START_ID,
    make_source_tokenizer,
    make_target_tokenizer,
)
from seqserve_export.recipes.trainer import Trainer, TrainingConfig
from seqserve_export.transformer import Transformer, TransformerConfig

NAME = "g2p-en"
_NUM_TEST, _NUM_VALID = 6000, 2500
GENERATION = GenerationConfig(
    decoder_start_token_id=START_ID, eos_token_id=END_ID, pad_token_id=PAD_ID, max_new_tokens=48
)


def make_model(
    source_vocabulary_size: int,
    target_vocabulary_size: int,
    *,
    width: int = 192,
    num_encoder_layers: int = 4,
    num_decoder_layers: int = 2,
    dropout: float = 0.1,
) -> Transformer:
    """Makes the untrained model from torch's random state."""
    num_heads = 4
    model = Transformer(
        TransformerConfig(
            model_size=width,
            num_heads=num_heads,
            head_size=width // num_heads,
            feed_forward_size=4 * width,
            positions="relative",
            num_position_buckets=32,
            max_position_distance=64,
            is_embedding_scaled=True,
            dropout=dropout,
            source_vocabulary_size=source_vocabulary_size,
            target_vocabulary_size=target_vocabulary_size,
            num_encoder_layers=num_encoder_layers,
            num_decoder_layers=num_decoder_layers,
            max_source_length=64,
            max_target_length=64,
        )
    )
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            # The table is also the output projection, which must start with small logits.
            nn.init.normal_(module.weight, std=width**-0.5)
        elif isinstance(module, nn.Linear) and module is not model.head:
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return model
