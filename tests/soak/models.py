"""The models of a soak: tiny ones of every task, and two versions of those that come and go."""

from pathlib import Path
from typing import Any

import torch

from seqserve.task_record import Task
from seqserve_export.exporter import export_model
from serving import TOKEN_LABELS
from soak.case import CHANGING, VERSIONS
from tiny_checkpoint import make_tiny_checkpoint
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder
from tiny_sentence_folder import make_tiny_sentence_folder

_HEADS = (Task.CLASSIFY, Task.CLASSIFY_TOKENS, Task.RERANK, Task.FILL_MASK)


def export_store(sources: Path, store: Path) -> None:
    """Exports all of them.

    Args:
        sources: Where checkpoints are written.
        store: Where what is served is written.
    """
    torch.set_num_threads(1)
    export_model(make_tiny_checkpoint(sources / "tiny", 8), store, name="tiny")
    export_model(make_tiny_sentence_folder(sources / "sentence", 1), store, name="sentence")
    long = make_tiny_checkpoint(
        sources / "long",
        5,
        positions="relative",
        norm="rms",
        max_source_length=300,
        max_target_length=200,
    )
    export_model(long, store, name="long")
    bert = find_variant("bert")
    for task in _HEADS:
        settings: dict[str, Any] = {}
        if task is Task.CLASSIFY_TOKENS:
            settings["id2label"] = dict(enumerate(TOKEN_LABELS))
        folder = make_tiny_encoder_folder(sources / task, bert, task, **settings)
        export_model(folder, store, name=task)
    export_second_versions(sources, store)


def export_second_versions(sources: Path, store: Path) -> None:
    """Exports those of the models that come and go, with other weights."""
    _, version = VERSIONS
    for name, make in zip(CHANGING, (make_tiny_sentence_folder, make_tiny_checkpoint), strict=True):
        folder = make(sources / f"{name}-{version}", 21)
        export_model(folder, store, name=name, version=version)
