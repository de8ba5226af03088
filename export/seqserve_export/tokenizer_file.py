"""Tokenizer files: read with care, written without what belongs to requests."""

from pathlib import Path

from tokenizers import Tokenizer

from seqserve_export.errors import CheckpointError


def read_tokenizer(path: Path) -> Tokenizer:
    """Reads a file of the ``tokenizers`` library, and removes truncation and padding from it.

    Both depend on the request and its batch. A length limit baked into the file would cut sources
    without a word; the limit of the model is in the manifest.

    Raises:
        CheckpointError: The file is absent or malformed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:
        # The library raises bare Exception for a malformed file.
        raise CheckpointError(f"{path} is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
