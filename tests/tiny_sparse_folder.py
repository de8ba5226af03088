"""Tiny folders of sparse sentence-transformers with random weights.

Depends on torch, transformers and sentence-transformers; import it only where those are at hand.
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling

from seqserve.task_record import Task
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder


def make_masked_language_folder(
    folder: Path, family: str = "bert", seed: int = 1, **settings: Any
) -> Path:
    """A Hugging Face folder whose logits are below zero for most of the vocabulary."""
    make_tiny_encoder_folder(folder, find_variant(family), Task.FILL_MASK, seed, **settings)
    model: Any = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_output_embeddings().bias -= 2.5
    model.save_pretrained(folder)
    return folder


def make_sparse_folder(
    folder: Path,
    strategy: Any = "max",
    activation: Any = "relu",
    *,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
    max_active_dims: int | None = None,
    max_length: int = 40,
) -> Path:
    """Saves a sparse encoder as the library does; returns the folder."""
    source = make_masked_language_folder(folder.with_name(f"{folder.name}-plain"))
    modules = [
        Transformer(str(source), transformer_task="fill-mask", max_seq_length=max_length),
        SpladePooling(strategy, activation),
    ]
    encoder = SparseEncoder(
        modules=modules,
        device="cpu",
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        max_active_dims=max_active_dims,
    )
    encoder.save_pretrained(str(folder), create_model_card=False)
    return folder


def make_older(folder: Path) -> Path:
    """Writes the modules of a folder as versions before 5.4 did; returns it."""
    path = folder / "modules.json"
    modules = json.loads(path.read_bytes())
    kinds = ("MLMTransformer", "SpladePooling")
    for module, kind in zip(modules, kinds, strict=True):
        module["type"] = f"sentence_transformers.sparse_encoder.models.{kind}"
    path.write_text(json.dumps(modules), encoding="utf-8")
    settings = {"max_seq_length": 40, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
