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
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.families import ENCODER_READERS
from seqserve_export.families.encoder_decoder import ENCODER_DECODER_READERS
from seqserve_export.json_file import read_json_object
from seqserve_export.sentence_folder import MODULES_FILE, read_sentence_folder
from seqserve_export.source import GenerationSource, Source
from seqserve_export.tokenizer_file import read_tokenizer


def read_source_folder(folder: Path, *, is_pickle_allowed: bool) -> Source:
    """Reads a checkpoint folder of any supported kind.

    Raises:
        UnsupportedError: The folder is of no supported kind, or uses what is not supported.
        CheckpointError: A file is absent or malformed, or the files do not fit each other.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder")
    if (folder / MODULES_FILE).is_file():
        return read_sentence_folder(folder, is_pickle_allowed=is_pickle_allowed)
    supported = (
        f'supported are folders with "format": "{FORMAT}" in {CONFIG_FILE}, Hugging Face folders '
        f'with "model_type" {", ".join(sorted(ENCODER_DECODER_READERS))}, and folders of '
        f"sentence-transformers ({MODULES_FILE}) with an encoder of one of the families "
        f"{', '.join(sorted(ENCODER_READERS))}"
    )
    if not (folder / CONFIG_FILE).is_file():
        raise UnsupportedError(
            f"{folder} has neither {MODULES_FILE} nor {CONFIG_FILE}; {supported}"
        )
    config = read_json_object(folder / CONFIG_FILE)
    if config.get("format") == FORMAT:
        return _read_transformer_folder(folder)
    if is_encoder_decoder(config):
        return read_encoder_decoder_folder(folder, config, is_pickle_allowed=is_pickle_allowed)
    if "format" in config:
        found = f'"format": {config["format"]!r}'
    else:
        found = f'"model_type": {config.get("model_type")!r} and no {MODULES_FILE}'
    raise UnsupportedError(f"{folder} has {found}; {supported}")


def _read_transformer_folder(folder: Path) -> GenerationSource:
    checkpoint = load_checkpoint(folder)
    target_path = folder / TARGET_TOKENIZER_FILE
    return GenerationSource(
        name=checkpoint.name,
        family="transformer",
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
