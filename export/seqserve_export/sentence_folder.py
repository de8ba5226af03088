"""Reads a folder of ``sentence-transformers``: an encoder, a pooling and perhaps a normalization.

=====================================  =====================================================
file                                   what is read from it
=====================================  =====================================================
``modules.json``                       the modules, in order
``config.json``, ``model.safetensors`` the encoder, see :mod:`seqserve_export.families`
``tokenizer.json``                     the tokenizer, without its truncation and padding
``sentence_bert_config.json``          the longest source
``tokenizer_config.json``              the longest source, where the file above is silent
``1_Pooling/config.json``              the pooling, as one mode or as flags of older versions
``config_sentence_transformers.json``  whether a prompt is put before every text
=====================================  =====================================================

What would change the embeddings and is not supported is refused, never left out.
"""

from pathlib import Path
from typing import Any

from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.families import read_encoder
from seqserve_export.json_file import read_json, read_json_object
from seqserve_export.pooling import PoolingMode
from seqserve_export.samples import SAMPLES
from seqserve_export.source import EmbeddingSource
from seqserve_export.tokenizer_file import read_tokenizer
from seqserve_export.weights import read_weights

MODULES_FILE = "modules.json"

_POOLING_FLAGS: dict[str, PoolingMode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}


def read_sentence_folder(folder: Path, *, is_pickle_allowed: bool) -> EmbeddingSource:
    """Reads the folder.

    Raises:
        UnsupportedError: A module, a pooling or another setting is not supported.
        CheckpointError: A file is absent or malformed, or the files do not fit each other.
    """
    modules = _read_modules(folder / MODULES_FILE)
    encoder_folder = _module_folder(folder, modules[0])
    config = read_json_object(encoder_folder / "config.json")
    _check_prompt(folder / "config_sentence_transformers.json")
    pooling = _read_pooling(_module_folder(folder, modules[1]) / "config.json")
    max_source_length = _read_max_source_length(encoder_folder, config)
    tokenizer = read_tokenizer(encoder_folder / "tokenizer.json")
    weights = read_weights(encoder_folder, is_pickle_allowed=is_pickle_allowed)
    return EmbeddingSource(
        name=folder.resolve().name,
        family=str(config.get("model_type")),
        model=read_encoder(config, weights),
        pooling=pooling,
        is_normalized=len(modules) == 3,
        tokenizer=tokenizer,
        max_source_length=max_source_length,
        samples=SAMPLES,
    )


def _read_modules(path: Path) -> list[dict[str, Any]]:
    modules = read_json(path)
    try:
        # The packages of the classes differ between versions of the library.
        kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
        is_complete = all(isinstance(module["path"], str) for module in modules)
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a list of modules: {error!r}") from error
    if not is_complete:
        raise CheckpointError(f"{path} holds a path that is not a text")
    for kind, module in zip(kinds, modules, strict=True):
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise UnsupportedError(
                f"module {module['type']} is not supported; supported are Transformer, Pooling "
                "(mean or cls) and Normalize"
            )
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UnsupportedError(
            f"modules {', '.join(kinds) or '(none)'} are not supported; they must be Transformer, "
            "Pooling and perhaps Normalize, in this order"
        )
    return list(modules)


def _module_folder(folder: Path, module: dict[str, Any]) -> Path:
    path = (folder / str(module["path"])).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise CheckpointError(f"{MODULES_FILE} names {module['path']!r}, outside of the folder")
    return path


def _read_pooling(path: Path) -> PoolingMode:
    config = read_json_object(path)
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        modes = list(mode) if isinstance(mode, list) else [mode]
    else:
        flags = [
            name for name, value in config.items() if name.startswith("pooling_mode_") and value
        ]
        modes = [_POOLING_FLAGS.get(name, name) for name in flags]
    match modes:
        case ["mean"]:
            return "mean"
        case ["cls"]:
            return "cls"
    raise UnsupportedError(
        f"module Pooling with {', '.join(map(str, modes)) or 'no mode'} ({path}) is not supported; "
        "supported are mean and cls"
    )


def _check_prompt(path: Path) -> None:
    if not path.is_file():
        return
    config = read_json_object(path)
    name = config.get("default_prompt_name")
    if name is not None and (config.get("prompts") or {}).get(name):
        raise UnsupportedError(
            f"{path} puts the prompt {name!r} before every text, which is not supported"
        )


def _read_max_source_length(folder: Path, config: dict[str, Any]) -> int:
    path = folder / "sentence_bert_config.json"
    settings = read_json_object(path) if path.is_file() else {}
    if settings.get("do_lower_case"):
        raise UnsupportedError(f'"do_lower_case": true ({path}) is not supported')
    limit = settings.get("max_seq_length")
    if limit is None:
        tokenizer_path = folder / "tokenizer_config.json"
        settings = read_json_object(tokenizer_path) if tokenizer_path.is_file() else {}
        # Where there is no limit, the library writes a number beyond all lengths.
        limits = [settings.get("model_max_length"), config.get("max_position_embeddings")]
        limit = min((number for number in limits if number is not None), default=None)
    if not isinstance(limit, int):
        raise CheckpointError(f"{folder} does not say how long a source may be: {limit!r}")
    return limit
