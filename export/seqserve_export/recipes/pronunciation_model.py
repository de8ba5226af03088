"""The pronunciation model: its architecture, how it starts, and the folder it ships in."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from seqserve_export.checkpoint import (
    SOURCE_TOKENIZER_FILE,
    TARGET_TOKENIZER_FILE,
    Checkpoint,
    GenerationConfig,
    save_checkpoint,
)
from seqserve_export.recipes.decoding import decode_all
from seqserve_export.recipes.pronunciation_tokenizer import END_ID, PAD_ID, START_ID
from seqserve_export.transformer import Transformer
from seqserve_export.transformer_config import TransformerConfig

NAME = "g2p-en"
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
    initialize(model)
    return model


def initialize(model: Transformer) -> None:
    """Gives embeddings and linear layers the weights that training begins with."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            if module.weight.requires_grad:
                # The table is also the output projection, which must start with small logits.
                nn.init.normal_(module.weight, std=model.config.model_size**-0.5)
        elif isinstance(module, nn.Linear) and module is not model.head:
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def count_parameters(model: Transformer) -> int:
    """Counts the trained numbers; a shared table counts once."""
    return sum(weight.numel() for weight in model.parameters())


def write_checkpoint(
    model: Transformer, source: Tokenizer, target: Tokenizer, folder: Path
) -> None:
    """Writes the shipped folder, in fp16, but for the model card."""
    checkpoint = Checkpoint(name=NAME, model=model, generation=GENERATION)
    save_checkpoint(checkpoint, folder, dtype=torch.float16)
    source.save(str(folder / SOURCE_TOKENIZER_FILE))
    target.save(str(folder / TARGET_TOKENIZER_FILE))


def pronounce(
    model: Transformer, source: Tokenizer, target: Tokenizer, words: Iterable[str]
) -> list[str]:
    """Pronounces words greedily: phonemes with spaces between them."""
    sources = [encoding.ids for encoding in source.encode_batch(list(words))]
    decoded: list[str] = target.decode_batch(
        decode_all(model, sources, GENERATION, num_beams=1), skip_special_tokens=True
    )
    return decoded
