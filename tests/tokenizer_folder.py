"""Folders of tokenizers: read with their own configuration, and with settings added."""

import json
from pathlib import Path
from typing import Any

from seqserve_export.tokenization.folder_tokenizers import FolderTokenizers, read_folder_tokenizers
from tiny_tokenizer_folders import write_json


def read(folder: Path) -> FolderTokenizers:
    """Reads a folder with its own configuration."""
    return read_folder_tokenizers(folder, json.loads((folder / "config.json").read_text("utf-8")))


def add_settings(folder: Path, **settings: Any) -> None:
    """Adds to ``tokenizer_config.json``."""
    path = folder / "tokenizer_config.json"
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    write_json(path, found | settings)
