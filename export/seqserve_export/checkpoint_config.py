"""Reads the ``config.json`` of Hugging Face folders, with the defaults of ``transformers``.

A configuration leaves out what equals the default of its class, so only the library knows what it
means. Code that a folder brings along is never run.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers

from seqserve.task_record import Task
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.families import find_family
from seqserve_export.json_file import read_json_object

CONFIG_FILE = "config.json"


def read_config(folder: Path) -> Any:
    """Reads a configuration; that its family is supported, the caller has seen to.

    Returns:
        A configuration of ``transformers``; untyped, since every family has its own fields.

    Raises:
        UnsupportedError: The model needs code of the folder's own.
        CheckpointError: The file is absent or malformed.
    """
    path = folder / CONFIG_FILE
    content = read_json_object(path)
    if content.get("auto_map"):
        raise UnsupportedError(
            f'{path} needs code of its own ("auto_map": {content["auto_map"]!r}), which is never '
            "run; supported are the models of the transformers library itself"
        )
    try:
        with without_chatter():
            return transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        # The library raises whatever a wrong value leads to.
        raise CheckpointError(f"{path} is malformed: {_first_line(error)}") from error


def find_task(config: Any) -> Task:
    """What a checkpoint does, by the class it was saved from; without one, it embeds.

    A sequence classifier with a single label is a cross-encoder, that reranks, unless it says that
    it was trained for regression.

    Raises:
        UnsupportedError: It does something else; the message lists what is supported.
    """
    family = find_family(config.model_type)
    names = config.architectures or [f"{family.class_prefix}Model"]
    task = family.architectures.get(names[0])
    if task is None or len(names) > 1:
        raise UnsupportedError(
            f'"architectures" {", ".join(names)} is not supported; supported are: '
            f"{', '.join(family.architectures)}"
        )
    if task == Task.CLASSIFY and config.num_labels == 1 and config.problem_type != "regression":
        return Task.RERANK
    return task


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Silences what ``transformers`` logs while it loads, and its progress bars."""
    logging: Any = transformers.utils.logging
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
