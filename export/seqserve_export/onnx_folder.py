"""Folders whose weights are in ONNX graphs, as Optimum exports them.

================================================  =================================================
file, in the folder or in ``onnx/``               what is read from it
================================================  =================================================
``model.onnx``                                    an encoder, bare or with a head
``encoder_model.onnx``                            the encoder of an encoder-decoder
``decoder_model.onnx``                            its decoder and head
``decoder_model_merged.onnx``                     the same, where the former is absent
``decoder_with_past_model.onnx``                  nothing: most of the same weights once more
``*.onnx_data``                                   the numbers of a graph
``config.json``, tokenizer files                  as where weights are SafeTensors
================================================  =================================================

Such graphs are made for padded batches and masks, and are not served. Their weights are read, our
model is made of them, and it must compute what the graphs do.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqserve.task_record import Task
from seqserve_export.checkpoint_config import find_task
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.onnx_graph import EXPORT_COMMAND, read_signature
from seqserve_export.onnx_weights import read_graph_weights
from seqserve_export.weights import has_weights

STATES = "last_hidden_state"
LOGITS = "logits"
TOKEN_TYPES = "token_type_ids"
MODEL_FILES = ("model.onnx",)
ENCODER_FILES = ("encoder_model.onnx",)
DECODER_FILES = ("decoder_model.onnx", "decoder_model_merged.onnx")
"""Either has all weights; ``decoder_with_past_model.onnx`` has none for encoder states."""
_ENCODER_PREFIXES = ("encoder.", "model.", "shared.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxFiles:
    """The graphs that are read."""

    encoder: Path
    """Or all of an encoder-only model."""
    decoder: Path | None
    """None for encoder-only models."""


def find_graphs(
    folder: Path, *, is_pickle_allowed: bool, is_encoder_decoder: bool = False
) -> OnnxFiles | None:
    """Looks for graphs in a folder without other weights.

    Args:
        folder: Where to look; then in its ``onnx/``.
        is_pickle_allowed: Whether pickled weights come before graphs.
        is_encoder_decoder: Which files to look for.

    Returns:
        None where there are other weights, or neither.

    Raises:
        CheckpointError: There are graphs, but not those that are needed.
    """
    if has_weights(folder, is_pickle_allowed=is_pickle_allowed):
        return None
    needed = (ENCODER_FILES, DECODER_FILES) if is_encoder_decoder else (MODEL_FILES,)
    problems = []
    for place in (folder, folder / "onnx"):
        found = sorted(path.name for path in place.glob("*.onnx"))
        chosen = [place / name for names in needed for name in names if name in found]
        missing = [" or ".join(names) for names in needed if not set(names) & set(found)]
        if not missing:
            return OnnxFiles(encoder=chosen[0], decoder=chosen[1] if is_encoder_decoder else None)
        if found:
            problems.append(f"{place} holds {', '.join(found)}, but not {' and '.join(missing)}")
    if problems:
        raise CheckpointError(
            f"{'; '.join(problems)}, which weights are read from; re-export with {EXPORT_COMMAND}, "
            "or use the original folder with model.safetensors"
        )
    return None


def find_graph_task(files: OnnxFiles | None, config: Any) -> tuple[Task, tuple[str, ...]]:
    """What an encoder-only model does, and notes on what its configuration says otherwise.

    Where there is no graph, it is what the configuration says. Where there is one, it may have been
    exported without the head, since Optimum leaves the configuration as it was.

    Raises:
        UnsupportedError: It does something that is not supported.
        CheckpointError: It has a head that the configuration does not name, or cannot be read.
    """
    if files is None:
        return find_task(config), ()
    inputs, outputs = read_signature(files.encoder)
    architectures = ", ".join(config.architectures or [])
    if LOGITS in outputs:
        task = find_task(config)
        if task == Task.EMBED:
            raise CheckpointError(
                f'{files.encoder} makes {LOGITS}, but "architectures" {architectures} in '
                "config.json names no class with a head"
            )
        if getattr(config, "type_vocab_size", 0) > 1 and TOKEN_TYPES not in inputs:
            return task, (
                "the graph takes no types of tokens: what they do to pairs was not compared",
            )
        return task, ()
    if STATES not in outputs:
        raise UnsupportedError(
            f"{files.encoder} has the outputs {', '.join(outputs)}; supported are graphs with "
            f"{STATES} or {LOGITS}; re-export with `optimum-cli export onnx --model ID "
            "--library-name transformers --no-post-process DIR`"
        )
    if not architectures or architectures.endswith("Model"):
        return Task.EMBED, ()
    return Task.EMBED, (
        f'"architectures" names {architectures}, but the graph has no head: the model embeds',
    )


def read_onnx_weights(files: OnnxFiles, config: Any) -> dict[str, Tensor]:
    """Reads the weights of all graphs, by the names of ``transformers``.

    Args:
        files: The graphs.
        config: A configuration of ``transformers``.

    Raises:
        UnsupportedError: A graph is quantized, fused, of half precision, or without names.
        CheckpointError: A file cannot be read, or the graphs do not fit each other.
    """
    is_head_tied = bool(config.tie_word_embeddings)
    weights = read_graph_weights(files.encoder, is_head_tied=is_head_tied)
    if files.decoder is None:
        return weights
    weights = {_to_encoder_name(name): weight for name, weight in weights.items()}
    for name, weight in read_graph_weights(files.decoder, is_head_tied=is_head_tied).items():
        known = weights.setdefault(name, weight)
        if known is not weight and not torch.equal(known, weight):
            raise CheckpointError(
                f"{files.encoder} and {files.decoder} are not of one model: {name} differs"
            )
    return weights


def _to_encoder_name(name: str) -> str:
    """Names in the graph of an encoder may begin at the encoder."""
    return name if name.startswith(_ENCODER_PREFIXES) else f"encoder.{name}"
