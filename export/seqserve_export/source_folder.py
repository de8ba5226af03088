"""Decides what a checkpoint folder is, and reads it."""

from pathlib import Path

from seqserve_export.checkpoint import (
    CONFIG_FILE,
    FORMAT,
    SAMPLES_FILE,
    SOURCE_TOKENIZER_FILE,
    TARGET_TOKENIZER_FILE,
    load_checkpoint,
)
from seqserve_export.encoder_decoder_folder import (
    is_encoder_decoder,
    read_encoder_decoder_folder,
)
from seqserve_export.encoder_files import MODULES_FILE
from seqserve_export.encoder_folder import read_encoder_folder
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.families import ENCODER_FAMILIES
from seqserve_export.families.encoder_decoder import ENCODER_DECODER_READERS
from seqserve_export.json_file import read_json_object
from seqserve_export.pooling import PoolingChoice
from seqserve_export.sentence_folder import read_modules, read_sentence_folder
from seqserve_export.source import EmbeddingSource, GenerationSource, PredictionSource, Source
from seqserve_export.sparse_folder import (
    SPLADE_POOLING,
    read_masked_language_folder,
    read_sparse_folder,
)
from seqserve_export.tokenizer_file import read_tokenizer


def read_source_folder(
    folder: Path, *, is_pickle_allowed: bool, pooling: PoolingChoice | None = None
) -> Source:
    """Reads a checkpoint folder of any supported kind.

    Args:
        folder: The checkpoint.
        is_pickle_allowed: Whether weights may come from a pickle.
        pooling: How a bare encoder is pooled, or the logits of a masked language model; refused
            where the folder says it.

    Raises:
        UnsupportedError: The folder is of no supported kind, or uses what is not supported.
        CheckpointError: A file is absent or malformed, or the files do not fit each other.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder")
    if (folder / MODULES_FILE).is_file():
        modules = read_modules(folder)
        kinds = [kind for kind, _ in modules]
        if kinds == ["Transformer"]:
            # A cross-encoder, which pools in its head. Its settings are beside its list of modules.
            if modules[0][1] != folder.resolve():
                raise UnsupportedError(
                    f"{folder} has its only module Transformer in {modules[0][1].name}, which is "
                    "not supported; it must be in the folder itself"
                )
            return _read_encoder(folder, pooling, is_pickle_allowed=is_pickle_allowed)
        _check_no_pooling(folder, pooling)
        if SPLADE_POOLING in kinds:
            return read_sparse_folder(folder, modules, is_pickle_allowed=is_pickle_allowed)
        return read_sentence_folder(folder, is_pickle_allowed=is_pickle_allowed)
    supported = (
        f'supported are folders with "format": "{FORMAT}" in {CONFIG_FILE}, Hugging Face folders '
        "of encoder-decoders of the families "
        f"{', '.join(sorted(ENCODER_DECODER_READERS))}, and Hugging Face and "
        "sentence-transformers folders with an encoder of one of the families "
        f"{', '.join(sorted(ENCODER_FAMILIES))}, with weights in SafeTensors or in ONNX graphs of "
        "Optimum"
    )
    if not (folder / CONFIG_FILE).is_file():
        raise UnsupportedError(
            f"{folder} has neither {MODULES_FILE} nor {CONFIG_FILE}; {supported}"
        )
    config = read_json_object(folder / CONFIG_FILE)
    if "format" not in config and config.get("model_type") in ENCODER_FAMILIES:
        return _read_encoder(folder, pooling, is_pickle_allowed=is_pickle_allowed)
    if config.get("format") == FORMAT:
        _check_no_pooling(folder, pooling)
        return _read_transformer_folder(folder)
    if is_encoder_decoder(config):
        return read_encoder_decoder_folder(folder, config, is_pickle_allowed=is_pickle_allowed)
    if "format" in config:
        found = f'"format": {config["format"]!r}'
    else:
        found = f'"model_type": {config.get("model_type")!r}'
    raise UnsupportedError(f"{folder} has {found}; {supported}")


def _read_encoder(
    folder: Path, pooling: PoolingChoice | None, *, is_pickle_allowed: bool
) -> EmbeddingSource | PredictionSource:
    match pooling:
        case "splade_max" | "splade_sum":
            return read_masked_language_folder(folder, pooling, is_pickle_allowed=is_pickle_allowed)
    return read_encoder_folder(folder, is_pickle_allowed=is_pickle_allowed, pooling=pooling)


def _check_no_pooling(folder: Path, pooling: PoolingChoice | None) -> None:
    if pooling is not None:
        raise UnsupportedError(
            f"pooling {pooling!r} cannot be chosen for {folder}; it can for a bare encoder, a "
            f"folder without {MODULES_FILE} and without a head"
        )


def _read_transformer_folder(folder: Path) -> GenerationSource:
    checkpoint = load_checkpoint(folder)
    target_path = folder / TARGET_TOKENIZER_FILE
    return GenerationSource(
        name=checkpoint.name,
        family=checkpoint.model.family,
        model=checkpoint.model,
        generation=checkpoint.generation,
        source_tokenizer=read_tokenizer(folder / SOURCE_TOKENIZER_FILE),
        target_tokenizer=read_tokenizer(target_path) if target_path.is_file() else None,
        samples=_read_samples(folder / SAMPLES_FILE),
    )


def _read_samples(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())
