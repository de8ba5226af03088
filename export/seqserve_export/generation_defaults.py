"""The decoding defaults of a Hugging Face folder, as ours.

Source: ``GenerationConfig`` of ``transformers`` 5 and what ``GenerationMixin.generate`` takes for
a value that is not set.
"""

import math
from pathlib import Path
from typing import Any

from transformers import GenerationConfig as FolderConfig

from seqserve_export.checkpoint import GenerationConfig
from seqserve_export.decoding_range import PENALTIES
from seqserve_export.errors import CheckpointError, UnsupportedError

GENERATION_FILE = "generation_config.json"

DEFAULT_MAX_NEW_TOKENS = 256
"""Where a folder sets no limit. ``transformers`` would stop at 20 tokens, with a warning."""

_DEFAULT_TOP_K = 50
"""Where a folder sets none; sampling only."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "begin_suppress_tokens": ((), []),
    "constraints": (),
    "diversity_penalty": (0.0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": (),
    "guidance_scale": (1.0,),
    "min_p": (),
    "num_beam_groups": (1,),
    "penalty_alpha": (0.0,),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "sequence_bias": (),
    "stop_strings": (),
    "token_healing": (False,),
    "top_h": (),
    "typical_p": (1.0,),
    "watermarking_config": (),
}
"""What changes results and is not supported, with the values besides null that change nothing."""


def read_generation_config(
    folder: Path, *, max_target_length: int, fallback_start_token_id: int | None = None
) -> GenerationConfig:
    """Reads ``generation_config.json``, or what older folders keep of it in ``config.json``.

    Args:
        folder: The Hugging Face folder.
        max_target_length: Target tokens the model has positions for.
        fallback_start_token_id: What decoding starts with where the folder says nothing.

    Raises:
        UnsupportedError: It asks for what our search does not do; the message lists all of it.
        CheckpointError: It is malformed, or lacks a special token.
    """
    config = _read(folder)
    _check_supported(config)
    eos_token_id = _only(config.eos_token_id, "eos_token_id")
    start = config.decoder_start_token_id
    if start is None:
        start = config.bos_token_id if fallback_start_token_id is None else fallback_start_token_id
    pad_token_id = eos_token_id if config.pad_token_id is None else config.pad_token_id
    max_new_tokens = min(_read_max_new_tokens(config), max_target_length)
    # min_length counts the start token.
    min_new_tokens = max(config.min_new_tokens or 0, (config.min_length or 0) - 1, 0)
    return GenerationConfig(
        decoder_start_token_id=_only(start, "decoder_start_token_id"),
        eos_token_id=eos_token_id,
        pad_token_id=_only(pad_token_id, "pad_token_id"),
        max_new_tokens=max_new_tokens,
        num_beams=config.num_beams or 1,
        length_penalty=_read_penalty(config, "length_penalty"),
        early_stopping=bool(config.early_stopping),
        min_new_tokens=min(min_new_tokens, max_new_tokens),
        no_repeat_ngram_size=config.no_repeat_ngram_size or 0,
        repetition_penalty=_read_penalty(config, "repetition_penalty"),
        forced_bos_token_id=_only_or_none(config.forced_bos_token_id, "forced_bos_token_id"),
        forced_eos_token_id=_only_or_none(config.forced_eos_token_id, "forced_eos_token_id"),
        suppressed_tokens=_read_suppressed(config),
        suppressed_sequences=tuple(
            tuple(words) for words in config.bad_words_ids or [] if len(words) > 1
        ),
        do_sample=bool(config.do_sample),
        temperature=_read_positive(config, "temperature"),
        top_k=_read_top_k(config),
        top_p=_read_positive(config, "top_p"),
    )


def _read(folder: Path) -> Any:
    is_own_file = (folder / GENERATION_FILE).is_file()
    try:
        if is_own_file:
            return FolderConfig.from_pretrained(folder, local_files_only=True)
        return FolderConfig.from_pretrained(
            folder, config_file_name="config.json", _from_model_config=True, local_files_only=True
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        name = GENERATION_FILE if is_own_file else "config.json"
        raise CheckpointError(f"{folder / name} is malformed: {error}") from error


def _check_supported(config: Any) -> None:
    problems = [
        f'"{name}": {value!r}'
        for name, neutral in _NEUTRAL.items()
        if (value := getattr(config, name, None)) is not None and value not in neutral
    ]
    if config.early_stopping not in (None, True, False):
        problems.append(f'"early_stopping": {config.early_stopping!r}')
    if config.do_sample and (config.num_beams or 1) > 1:
        problems.append(f'"do_sample": True with "num_beams": {config.num_beams}')
    if problems:
        raise UnsupportedError(
            f"the decoding defaults ask for what is not supported: {', '.join(problems)}; remove "
            f"it from {GENERATION_FILE}, if results without it are what you want"
        )


def _read_max_new_tokens(config: Any) -> int:
    if config.max_new_tokens is not None:
        return int(config.max_new_tokens)
    if config.max_length is not None:
        return max(1, int(config.max_length) - 1)  # max_length counts the start token
    return DEFAULT_MAX_NEW_TOKENS


def _read_positive(config: Any, name: str) -> float:
    """A number above 0 that is 1 where it is off."""
    value = getattr(config, name)
    if value is None:
        return 1.0
    if not 0 < value < math.inf or (name == "top_p" and value > 1):
        raise CheckpointError(f'"{name}" in {GENERATION_FILE} is out of range: {value!r}')
    return float(value)


def _read_penalty(config: Any, name: str) -> float:
    """A number that is 1 where it is not set."""
    value = getattr(config, name)
    if value is None:
        return 1.0
    low, high = PENALTIES[name]
    if not low <= value <= high:
        raise CheckpointError(
            f'"{name}" in {GENERATION_FILE} is out of range: {value!r}; it must be at least '
            f"{low:g} and at most {high:g}"
        )
    return float(value)


def _read_top_k(config: Any) -> int:
    value = _DEFAULT_TOP_K if config.top_k is None else config.top_k
    if not isinstance(value, int) or value < 0:
        raise CheckpointError(f'"top_k" in {GENERATION_FILE} is out of range: {value!r}')
    return value


def _read_suppressed(config: Any) -> tuple[int, ...]:
    # To transformers the end token is never a bad word.
    single = [words[0] for words in config.bad_words_ids or [] if len(words) == 1]
    bad_words = set(single) - {config.eos_token_id}
    return tuple(sorted(bad_words | set(config.suppress_tokens or [])))


def _only(value: Any, name: str) -> int:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        raise UnsupportedError(f'"{name}" with several tokens, {value}, is not supported')
    if not isinstance(value, int):
        raise CheckpointError(
            f'"{name}" must be a token id in {GENERATION_FILE} or config.json, but is {value!r}'
        )
    return value


def _only_or_none(value: Any, name: str) -> int | None:
    return None if value is None else _only(value, name)
