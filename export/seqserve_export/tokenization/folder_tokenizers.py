"""Reads the tokenizers of a Hugging Face folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, TokenizersBackend

from seqserve.sentencepiece_tokenizer import SentencePieceTokenizer
from seqserve_export.errors import CheckpointError
from seqserve_export.tokenization.folder_files import (
    check_files,
    find_class,
    mend_model_reader,
    read_settings,
)
from seqserve_export.tokenization.languages import Languages, read_languages
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
    check_files(folder, find_class(folder, config, settings), settings)
    mend_model_reader()
    try:
        original = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        # Every class raises what it likes for a malformed file.
        raise CheckpointError(
            f"transformers cannot read the tokenizer of {folder}: {type(error).__name__}: {error}"
        ) from error
    languages = read_languages(original, settings)
    has_frame = languages is not None
    source: FolderTokenizer
    target: FolderTokenizer | None = None
    if isinstance(original, TokenizersBackend):
        source = make_rust_tokenizer(original, has_frame=has_frame)
    else:
        source = make_pieces_tokenizer(original, "source", has_frame=has_frame)
        target = make_pieces_tokenizer(original, "target", has_frame=has_frame)
        if target.record == source.record:
            target = None
    return FolderTokenizers(source=source, target=target, languages=languages, original=original)
