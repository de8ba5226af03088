"""Reads a folder of ``sentence-transformers``: an encoder, a pooling, and what follows it.

=====================================  =====================================================
file                                   what is read from it
=====================================  =====================================================
``modules.json``                       the modules, in order
``config.json``, ``model.safetensors`` the encoder, see :mod:`seqserve_export.families`
``tokenizer.json``                     the tokenizer, without its truncation and padding
``sentence_bert_config.json``          the longest source
``tokenizer_config.json``              the longest source, where the file above is silent
``1_Pooling/config.json``              the pooling, as modes or as flags of older versions
``2_Dense/``, ``2_LayerNorm/``         projections of the embedding
``config_sentence_transformers.json``  the prompts, and whether embeddings are cut
=====================================  =====================================================

What would change the embeddings and is not supported is refused, never left out.
"""

from pathlib import Path
from typing import Any

from torch import nn

from seqserve_export.encoder_files import (
    MODULES_FILE,
    check_sentence_settings,
    check_transformer_task,
    read_prompts,
)
from seqserve_export.encoder_folder import EncoderFolder
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.json_file import read_json, read_json_object
from seqserve_export.pooling import POOLING_MODES, PoolingMode
from seqserve_export.projection import check_plain, read_dense, read_layer_norm
from seqserve_export.samples import SAMPLES
from seqserve_export.source import EmbeddingSource

_KINDS = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize")

# In the order in which several are joined.
_POOLING_FLAGS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_sentence_folder(folder: Path, *, is_pickle_allowed: bool) -> EmbeddingSource:
    """Reads the folder.

    Raises:
        UnsupportedError: A module, a pooling or another setting is not supported.
        CheckpointError: A file is absent or malformed, or the files do not fit each other.
        VerificationError: Our encoder is not the one of ``transformers``.
    """
    modules = read_modules(folder)
    kinds = [kind for kind, _ in modules]
    _check_kinds(kinds)
    check_sentence_settings(folder)
    check_transformer_task(modules[0][1], "feature-extraction")
    if kinds[-1] == "Normalize":
        check_plain("Normalize", modules[-1][1] / "config.json")
    modes = _read_pooling(modules[1][1] / "config.json")
    encoder = EncoderFolder(modules[0][1], is_pickle_allowed=is_pickle_allowed)
    size = len(modes) * encoder.encoder_config.model_size
    projection = nn.Sequential()
    for kind, module_folder in modules[2:]:
        if kind == "Dense":
            dense = read_dense(module_folder, size, is_pickle_allowed=is_pickle_allowed)
            projection.append(dense)
            size = dense.linear.out_features
        elif kind == "LayerNorm":
            projection.append(
                read_layer_norm(module_folder, size, is_pickle_allowed=is_pickle_allowed)
            )
    model, reference = encoder.read_embedder()
    return EmbeddingSource(
        name=folder.resolve().name,
        family=encoder.config.model_type,
        model=model,
        pooling=modes,
        projection=projection,
        embedding_size=size,
        is_normalized=kinds[-1] == "Normalize",
        tokenizer=encoder.tokenizer,
        max_source_length=encoder.max_source_length,
        samples=SAMPLES,
        checks=(encoder.tokenizer_check, reference),
        prompts=read_prompts(folder),
        notes=encoder.tokenizer_notes,
    )


def read_modules(folder: Path) -> list[tuple[str, Path]]:
    """The modules of a folder: kind and folder of each.

    Raises:
        CheckpointError: The list is absent or malformed, or leads outside of the folder.
    """
    path = folder / MODULES_FILE
    modules = read_json(path)
    try:
        # The packages of the classes differ between versions of the library.
        kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
        is_complete = all(isinstance(module["path"], str) for module in modules)
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a list of modules: {error!r}") from error
    if not is_complete:
        raise CheckpointError(f"{path} holds a path that is not a text")
    folders = [_module_folder(folder, module) for module in modules]
    return list(zip(kinds, folders, strict=True))


def _check_kinds(kinds: list[str]) -> None:
    for kind in kinds:
        if kind not in _KINDS:
            raise UnsupportedError(
                f"module {kind} is not supported; supported are {', '.join(_KINDS)}, and "
                "MLMTransformer with SpladePooling"
            )
    middle = kinds[2:-1] if kinds[-1:] == ["Normalize"] else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(middle) <= {"Dense", "LayerNorm"}:
        raise UnsupportedError(
            f"modules {', '.join(kinds) or '(none)'} are not supported; they must be Transformer, "
            "Pooling, any number of Dense and LayerNorm, and perhaps Normalize, in this order"
        )


def _module_folder(folder: Path, module: dict[str, Any]) -> Path:
    path = (folder / str(module["path"])).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise CheckpointError(f"{MODULES_FILE} names {module['path']!r}, outside of the folder")
    return path


def _read_pooling(path: Path) -> tuple[PoolingMode, ...]:
    config = read_json_object(path)
    if config.get("include_prompt", True) is not True:
        raise UnsupportedError(
            f'module Pooling with "include_prompt" false ({path}) is not supported'
        )
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        found = list(mode) if isinstance(mode, list) else [mode]
    else:
        unknown = [
            name
            for name, value in config.items()
            if name.startswith("pooling_mode_") and value and name not in _POOLING_FLAGS
        ]
        found = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] + unknown
    modes = tuple(mode for mode in POOLING_MODES if mode in found)
    if not found or len(modes) != len(found):
        raise UnsupportedError(
            f"module Pooling with {', '.join(map(str, found)) or 'no mode'} ({path}) is not "
            f"supported; supported are {', '.join(POOLING_MODES)}"
        )
    return tuple(found)
