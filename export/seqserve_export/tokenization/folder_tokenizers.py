"""Reads the tokenizers of a Hugging Face folder."""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    NllbTokenizer,
    PreTrainedTokenizerBase,
    TokenizersBackend,
)

from seqserve.sentencepiece_tokenizer import SentencePieceTokenizer
from seqserve_export.errors import CheckpointError
from seqserve_export.tokenization.differences import compare_with_model, compare_with_ready_file
from seqserve_export.tokenization.folder_files import (
    TOKENIZER_FILE,
    check_files,
    find_class,
    mend_model_reader,
    read_settings,
)
from seqserve_export.tokenization.languages import Languages, read_languages
from seqserve_export.tokenization.nllb import read_missing_tokens
from seqserve_export.tokenization.pieces import make_pieces_tokenizer
from seqserve_export.tokenization.rust import make_rust_tokenizer

FolderTokenizer = Tokenizer | SentencePieceTokenizer
"""Both have ``encode``, ``decode``, ``get_vocab`` and ``save``, and :class:`seqserve.tokenizer
.Tokenizer` reads what either saves."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderTokenizers:
    """What a folder tokenizes sources and targets with."""

    source: FolderTokenizer
    target: FolderTokenizer | None
    """None when source and target share one."""
    languages: Languages | None
    """None when the tokenizer adds the special tokens itself."""
    original: PreTrainedTokenizerBase
    """As ``transformers`` reads it, to verify with."""
    notes: tuple[str, ...] = ()
    """What whoever exports should know."""


def read_folder_tokenizers(folder: Path, config: Mapping[str, Any]) -> FolderTokenizers:
    """Reads the tokenizers of a folder, in whatever files it keeps them.

    Args:
        folder: A Hugging Face folder.
        config: Its ``config.json``.

    Raises:
        UnsupportedError: The tokenizer is of a class or has a setting that is not supported.
        CheckpointError: A file is absent or malformed.
    """
    settings = read_settings(folder, config)
    kind = find_class(folder, config, settings)
    check_files(folder, kind, settings)
    missing = read_missing_tokens(folder, settings) if kind is NllbTokenizer else {}
    # For some model types AutoTokenizer takes a class that reads ready files alone.
    is_ready = (folder / TOKENIZER_FILE).is_file() and kind is not TokenizersBackend
    original = _read_original(AutoTokenizer if is_ready else kind, folder, missing)
    languages = read_languages(original, settings)
    has_frame = languages is not None
    source: FolderTokenizer
    target: FolderTokenizer | None = None
    notes: tuple[str, ...] = ()
    if isinstance(original, TokenizersBackend):
        source = make_rust_tokenizer(original, has_frame=has_frame)
        notes = _find_differences(folder, original)
    else:
        source = make_pieces_tokenizer(original, "source", has_frame=has_frame)
        target = make_pieces_tokenizer(original, "target", has_frame=has_frame)
        if target.record == source.record:
            target = None
    return FolderTokenizers(
        source=source, target=target, languages=languages, original=original, notes=notes
    )


def _read_original(
    reader: type[AutoTokenizer] | type[PreTrainedTokenizerBase],
    folder: Path,
    missing: Mapping[str, Any],
) -> PreTrainedTokenizerBase:
    mend_model_reader()
    try:
        with warnings.catch_warnings():
            # It normalizes punctuation where it is called for, which no tokenizer does by itself.
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            original: PreTrainedTokenizerBase = reader.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **missing
            )
    except Exception as error:
        # Every class raises what it likes for a malformed file.
        raise CheckpointError(
            f"transformers cannot read the tokenizer of {folder}: {type(error).__name__}: {error}"
        ) from error
    return original


def _find_differences(folder: Path, original: TokenizersBackend) -> tuple[str, ...]:
    if (folder / TOKENIZER_FILE).is_file():
        return compare_with_ready_file(folder / TOKENIZER_FILE, original)
    name = type(original).vocab_files_names["vocab_file"]
    return compare_with_model(folder / name, original) if name.endswith(".model") else ()
