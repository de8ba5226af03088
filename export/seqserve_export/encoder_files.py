"""What folders with an encoder say about sources: their longest length, prompts, the mask token.

What would change a source or a result and is not supported is refused, never left out.
"""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.json_file import read_json_object
from seqserve_export.source import Prompts

MODULES_FILE = "modules.json"
SENTENCE_TRANSFORMERS_FILE = "config_sentence_transformers.json"
SENTENCE_CONFIG_FILE = "sentence_bert_config.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_UNSUPPORTED_SETTINGS = (
    # The library lowers the case; a tokenizer.json that does it itself is fine.
    "do_lower_case",
    "processing_kwargs",
    # Of multi-vector models.
    "query_length",
    "document_length",
    "query_expansion",
)
_TOKEN_FILES = (TOKENIZER_CONFIG_FILE, "special_tokens_map.json")


def read_max_source_length(folder: Path, config: EncoderConfig) -> int:
    """How long a source may be, in tokens: as the folder says, else as long as its parts allow.

    Raises:
        UnsupportedError: Texts would have to be changed first.
        CheckpointError: The folder says something that is no length.
    """
    path = folder / SENTENCE_CONFIG_FILE
    settings = _read_optional(path)
    for field in _UNSUPPORTED_SETTINGS:
        if settings.get(field):
            raise UnsupportedError(f'"{field}" {settings[field]!r} ({path}) is not supported')
    limit = settings.get("max_seq_length")
    if limit is None:
        # Where there is no limit, the library writes a number beyond all lengths.
        limit = _read_optional(folder / TOKENIZER_CONFIG_FILE).get("model_max_length")
        limit = config.max_length if limit is None else min(int(limit), config.max_length)
    if not isinstance(limit, int):
        raise CheckpointError(f"{folder} does not say how long a source may be: {limit!r}")
    return limit


def check_transformer_task(folder: Path, *tasks: str) -> None:
    """Checks what a module Transformer is for: embedding, if its folder does not say.

    Args:
        folder: Of the module.
        tasks: What it may be for.

    Raises:
        UnsupportedError: It is for something else.
        CheckpointError: Its file is malformed.
    """
    path = folder / SENTENCE_CONFIG_FILE
    task = _read_optional(path).get("transformer_task") or "feature-extraction"
    if task not in tasks:
        raise UnsupportedError(
            f'"transformer_task" {task!r} ({path}) is not supported beside these modules; '
            f"supported is {', '.join(map(repr, tasks))}"
        )


def check_sentence_settings(folder: Path) -> dict[str, Any]:
    """Checks what ``sentence-transformers`` would do to all embeddings of a model.

    Returns:
        All its settings; empty where there are none.

    Raises:
        UnsupportedError: It cuts embeddings.
        CheckpointError: The file is malformed.
    """
    path = folder / SENTENCE_TRANSFORMERS_FILE
    settings = _read_optional(path)
    if settings.get("truncate_dim") is not None:
        raise UnsupportedError(
            f"{path} cuts embeddings to {settings['truncate_dim']!r} numbers (truncate_dim), which "
            "is not supported"
        )
    return settings


def read_prompts(folder: Path) -> Prompts:
    """The texts that ``sentence-transformers`` can put before others.

    Raises:
        CheckpointError: They are no texts, or the default is not among them.
    """
    path = folder / SENTENCE_TRANSFORMERS_FILE
    settings = _read_optional(path)
    texts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if not isinstance(texts, dict) or not all(
        isinstance(text, str | None) for text in texts.values()
    ):
        raise CheckpointError(f'{path}: "prompts" must be texts by name, but are {texts!r}')
    if default is not None and default not in texts:
        raise CheckpointError(
            f'{path}: "default_prompt_name" must be one of the prompts, but is {default!r}; they '
            f"are: {', '.join(texts) or 'none'}"
        )
    return Prompts({name: text or "" for name, text in texts.items()}, default)


def read_query_prompts(folder: Path) -> Prompts:
    """The texts that a cross-encoder of ``sentence-transformers`` can put before queries.

    Raises:
        UnsupportedError: One is put before every query, but not by the library itself.
        CheckpointError: The prompts are malformed.

    Source: ``BaseModel._load_modules`` of ``sentence-transformers``.
    """
    path, prompts = folder / SENTENCE_TRANSFORMERS_FILE, read_prompts(folder)
    kind = _read_optional(path).get("model_type")
    is_read = (folder / MODULES_FILE).is_file() and kind == "CrossEncoder"
    if prompts.default is not None and prompts.texts[prompts.default] and not is_read:
        raise UnsupportedError(
            f"{path} puts the prompt {prompts.default!r} before every text, but "
            f'sentence-transformers reads it only beside {MODULES_FILE} and with "model_type" '
            '"CrossEncoder"; save the folder with CrossEncoder.save_pretrained, or remove the '
            "default"
        )
    return prompts


def check_no_default_prompt(folder: Path) -> None:
    """Refuses prompts before every text where there is a head whose calls take none.

    Raises:
        UnsupportedError: There is such a prompt.
        CheckpointError: The prompts are malformed.
    """
    prompts = read_prompts(folder)
    if prompts.default is not None and prompts.texts[prompts.default]:
        raise UnsupportedError(
            f"{folder / SENTENCE_TRANSFORMERS_FILE} puts the prompt {prompts.default!r} before "
            "every text, which is supported for embeddings and reranking only"
        )


def read_mask_token(folder: Path, tokenizer: Tokenizer, default: str) -> tuple[str, int]:
    """The token that stands for a missing one, as text and id.

    Args:
        folder: Its files may name the token.
        tokenizer: Must know the token.
        default: The family's, where no file names one.

    Raises:
        CheckpointError: The tokenizer does not know it.
    """
    token = default
    for name in _TOKEN_FILES:
        entry = _read_optional(folder / name).get("mask_token")
        # A token with settings is an object.
        content = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(content, str):
            token = content
            break
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise CheckpointError(
            f"the tokenizer in {folder} does not know the mask token {token!r}; name it as "
            f'"mask_token" in {TOKENIZER_CONFIG_FILE}'
        )
    return token, token_id


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}
