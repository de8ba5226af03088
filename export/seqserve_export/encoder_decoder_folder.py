"""Reads an encoder-decoder folder of Hugging Face: configuration, tokenizers, defaults, weights."""

from pathlib import Path
from typing import Any

import numpy as np

from seqserve.task_record import LanguageRecord, TargetMode
from seqserve_export.checkpoint import GenerationConfig
from seqserve_export.checkpoint_config import read_config
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.families.encoder_decoder import ENCODER_DECODER_READERS
from seqserve_export.generation_defaults import read_generation_config
from seqserve_export.generation_reference import ReferenceCase, run_transformers
from seqserve_export.onnx_folder import OnnxFiles, find_graphs, read_onnx_weights
from seqserve_export.onnx_reference import run_graphs
from seqserve_export.samples import SAMPLES
from seqserve_export.source import GenerationSource
from seqserve_export.tokenization.folder_tokenizers import read_folder_tokenizers
from seqserve_export.tokenization.languages import Languages
from seqserve_export.tokenization.tokenizer_verification import verify_tokenizers
from seqserve_export.verification import SEED, make_sources
from seqserve_export.weights import read_weights

_HEADS = ("ForConditionalGeneration", "MTModel")
_NUM_REFERENCE_CASES = 8
_MAX_REFERENCE_LENGTH = 24
_TARGET_MODES = {
    "forced_bos": TargetMode.FORCED_BOS,
    "decoder_start": TargetMode.DECODER_START,
    "source_prefix": TargetMode.SOURCE,
}


def is_encoder_decoder(config: dict[str, Any]) -> bool:
    """Whether ``config.json`` is that of a family read here."""
    return config.get("model_type") in ENCODER_DECODER_READERS


def read_encoder_decoder_folder(
    folder: Path, config: dict[str, Any], *, is_pickle_allowed: bool
) -> GenerationSource:
    """Reads the folder.

    Args:
        folder: Where it is.
        config: Its ``config.json``.
        is_pickle_allowed: Whether weights may come from a pickle.

    Raises:
        UnsupportedError: The folder uses what is not supported.
        CheckpointError: A file is absent or malformed, or the files do not fit each other.
    """
    _check_architecture(folder, config)
    tokenizers = read_folder_tokenizers(folder, config)
    full_config = read_config(folder)
    graphs = find_graphs(folder, is_pickle_allowed=is_pickle_allowed, is_encoder_decoder=True)
    if graphs is None:
        weights = read_weights(folder, is_pickle_allowed=is_pickle_allowed)
    else:
        weights = read_onnx_weights(graphs, full_config)
    reference = _run_reference(folder, full_config, graphs)
    model = ENCODER_DECODER_READERS[full_config.model_type](full_config, weights)
    if isinstance(reference, CheckpointError):
        raise reference
    languages = tokenizers.languages
    generation = read_generation_config(
        folder,
        max_target_length=model.config.max_target_length,
        fallback_start_token_id=_find_start(languages),
    )
    return GenerationSource(
        name=folder.resolve().name,
        family=full_config.model_type,
        model=model,
        generation=generation,
        source_tokenizer=tokenizers.source,
        target_tokenizer=tokenizers.target,
        languages=None if languages is None else _to_record(languages, generation, folder),
        samples=SAMPLES,
        reference=tuple(reference),
        original="transformers" if graphs is None else "ONNX graphs",
        checks=(verify_tokenizers(tokenizers),),
        notes=tokenizers.notes,
    )


def _check_architecture(folder: Path, config: dict[str, Any]) -> None:
    architectures = config.get("architectures") or []
    if architectures and not any(str(name).endswith(_HEADS) for name in architectures):
        raise UnsupportedError(
            f'{folder} is for {", ".join(map(str, architectures))} ("architectures"); of the '
            f"family {config['model_type']} only models that generate text are supported, whose "
            f"class ends with {' or '.join(_HEADS)}"
        )


def _run_reference(
    folder: Path, config: Any, graphs: OnnxFiles | None
) -> list[ReferenceCase] | CheckpointError:
    """Runs the original; a failure waits, since our own reader names what is wrong better."""
    generator = np.random.default_rng(SEED)
    sizes = (config.vocab_size, getattr(config, "decoder_vocab_size", None) or config.vocab_size)
    sources, targets = (
        [
            # Padding would shift positions in transformers, and no real source holds it.
            [token for token in tokens if token != config.pad_token_id] or [0]
            for tokens in make_sources(generator, _NUM_REFERENCE_CASES, size, _MAX_REFERENCE_LENGTH)
        ]
        for size in sizes
    )
    try:
        if graphs is not None:
            return run_graphs(graphs, sources, targets)
        return run_transformers(folder, sources, targets)
    except CheckpointError as error:
        return error


def _find_start(languages: Languages | None) -> int | None:
    """What stands for the start token where every target starts with its language."""
    if languages is None or languages.target_mode != "decoder_start":
        return None
    token_ids: list[int] = list(languages.target_codes.values())
    return min(token_ids)


def _to_record(languages: Languages, generation: GenerationConfig, folder: Path) -> LanguageRecord:
    default_target = languages.default_target
    if default_target is None and languages.target_mode == "forced_bos":
        # A checkpoint tuned for one target language forces its token.
        codes = {token_id: code for code, token_id in languages.target_codes.items()}
        default_target = codes.get(generation.forced_bos_token_id or -1)
    try:
        return LanguageRecord(
            source=languages.source_codes,
            target=languages.target_codes,
            source_prefix=languages.source_prefix,
            source_suffix=languages.source_suffix,
            target_mode=_TARGET_MODES[languages.target_mode],
            default_source=languages.default_source,
            default_target=default_target,
        )
    except ValueError as error:
        raise CheckpointError(f"the languages of {folder} do not fit: {error}") from error
