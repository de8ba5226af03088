"""Reads masked language models that embed sparsely: SPLADE.

=====================================  =====================================================
file                                   what is read from it
=====================================  =====================================================
``modules.json``                       MLMTransformer (or Transformer) and SpladePooling
``config.json``, ``model.safetensors`` encoder and head, see :mod:`seqserve_export.families`
``1_SpladePooling/config.json``        the strategy, and what makes weights of logits
``sentence_bert_config.json``          the longest source
``config_sentence_transformers.json``  the prompts, and how many weights are kept
=====================================  =====================================================

A Hugging Face folder with a masked language model alone becomes one, too, if it is asked for.

Source: ``SparseEncoder`` of ``sentence-transformers``.
"""

from pathlib import Path
from typing import Any

from torch import nn

from seqserve.task_record import Task
from seqserve_export.encoder_files import (
    SENTENCE_TRANSFORMERS_FILE,
    check_sentence_settings,
    check_transformer_task,
    read_prompts,
)
from seqserve_export.encoder_folder import EncoderFolder
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.json_file import read_json_object
from seqserve_export.onnx_folder import find_graph_task
from seqserve_export.pooling import SPARSE_POOLINGS, SparsePooling
from seqserve_export.samples import SAMPLES
from seqserve_export.source import EmbeddingSource
from seqserve_export.sparse_head import SPARSE_ACTIVATIONS, SparseActivation

SPLADE_POOLING = "SpladePooling"
_MODULES = (["MLMTransformer", SPLADE_POOLING], ["Transformer", SPLADE_POOLING])


def read_sparse_folder(
    folder: Path, modules: list[tuple[str, Path]], *, is_pickle_allowed: bool
) -> EmbeddingSource:
    """Reads a folder of ``sentence-transformers`` whose embeddings are sparse.

    Args:
        folder: The folder.
        modules: Kind and folder of each, see ``read_modules``.
        is_pickle_allowed: Whether weights may come from a pickle.

    Raises:
        UnsupportedError: A module or another setting is not supported.
        CheckpointError: A file is absent or malformed, or the files do not fit each other.
        VerificationError: Our model is not the one of ``transformers``.
    """
    kinds = [kind for kind, _ in modules]
    if kinds not in _MODULES:
        raise UnsupportedError(
            f"modules {', '.join(kinds)} are not supported; of sparse embeddings they must be "
            f"MLMTransformer (or Transformer) and {SPLADE_POOLING}"
        )
    (first, encoder_folder), (_, pooling_folder) = modules
    if first == "Transformer":
        check_transformer_task(encoder_folder, "fill-mask")
    pooling, activation = _read_pooling(pooling_folder / "config.json")
    encoder = EncoderFolder(encoder_folder, is_pickle_allowed=is_pickle_allowed)
    return _read(encoder, folder, pooling, activation)


def read_masked_language_folder(
    folder: Path, pooling: SparsePooling, *, is_pickle_allowed: bool
) -> EmbeddingSource:
    """Reads a Hugging Face folder with a masked language model, to embed sparsely with it.

    Raises:
        UnsupportedError: It holds another model, or a setting is not supported.
        CheckpointError: A file is absent or malformed, or the files do not fit each other.
        VerificationError: Our model is not the one of ``transformers``.
    """
    encoder = EncoderFolder(folder, is_pickle_allowed=is_pickle_allowed)
    return _read(encoder, folder, pooling, "relu")


def _read(
    encoder: EncoderFolder, folder: Path, pooling: SparsePooling, activation: SparseActivation
) -> EmbeddingSource:
    settings = check_sentence_settings(folder)
    task, notes = find_graph_task(encoder.graphs, encoder.config)
    if task != Task.FILL_MASK:
        raise UnsupportedError(
            f"sparse embeddings ({pooling}) are made of the logits of a masked language model, "
            f"but that of {encoder.folder} does something else: {task}"
        )
    model, head, reference = encoder.read_sparse_embedder(pooling, activation)
    return EmbeddingSource(
        name=folder.resolve().name,
        family=encoder.config.model_type,
        model=model,
        pooling=head,
        projection=nn.Sequential(),
        embedding_size=head.head.config.num_outputs,
        is_normalized=False,
        tokenizer=encoder.tokenizer,
        max_source_length=encoder.max_source_length,
        samples=SAMPLES,
        checks=(encoder.tokenizer_check, reference),
        prompts=read_prompts(folder),
        max_active_dims=_read_max_active_dims(settings, folder),
        notes=(*encoder.tokenizer_notes, *notes),
    )


def _read_pooling(path: Path) -> tuple[SparsePooling, SparseActivation]:
    config = read_json_object(path)
    strategy = config.get("pooling_strategy", "max")
    activation = config.get("activation_function", "relu")
    for pooling in SPARSE_POOLINGS:
        for known in SPARSE_ACTIVATIONS:
            if (pooling, known) == (f"splade_{strategy}", activation):
                return pooling, known
    raise UnsupportedError(
        f"module {SPLADE_POOLING} with strategy {strategy!r} and activation {activation!r} "
        f"({path}) is not supported; supported are the strategies 'max' and 'sum', and the "
        f"activations {', '.join(map(repr, SPARSE_ACTIVATIONS))}"
    )


def _read_max_active_dims(settings: dict[str, Any], folder: Path) -> int | None:
    """How many weights an embedding has at most, if the folder says so."""
    limit = settings.get("max_active_dims")
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise CheckpointError(
            f'{folder / SENTENCE_TRANSFORMERS_FILE}: "max_active_dims" must be a number from 1 up, '
            f"but is {limit!r}"
        )
    return limit
