"""Checkpoints by their id on the Hugging Face hub, where the network allows it."""

import re
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from seqserve_export.errors import CheckpointError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FILES = ["*.json", "*.txt", "*.model", "*.spm", "*.safetensors", "*.onnx", "*.onnx_data"]
_PICKLES = ["*.bin"]


def find_source(source: str, revision: str | None, *, is_pickle_allowed: bool) -> Path:
    """The folder of a checkpoint: as it is, or downloaded.

    Args:
        source: A folder, or an id such as ``Helsinki-NLP/opus-mt-en-de``.
        revision: Branch, tag or commit of an id; None means its main branch.
        is_pickle_allowed: Whether pickled weights are downloaded, too.

    Raises:
        CheckpointError: There is no such folder, and no such id that can be had.
    """
    folder = Path(source)
    if source and folder.exists():
        if revision is not None:
            raise CheckpointError(f"--revision is for hub ids, but {source} is a folder")
        return folder
    if not _ID.fullmatch(source):
        raise CheckpointError(f"{source} does not exist, and is no id of the hub")
    try:
        return Path(
            huggingface_hub.snapshot_download(
                source,
                revision=revision,
                allow_patterns=_FILES + (_PICKLES if is_pickle_allowed else []),
            )
        )
    except (OSError, ValueError, errors.HfHubHTTPError, errors.LocalEntryNotFoundError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{source} is no folder here, and it cannot be had from the hub: {reason}"
        ) from error
