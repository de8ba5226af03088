"""Languages of an input, as the tokens that tell them to the model."""

import dataclasses
import difflib

from seqserve.errors import InvalidRequestError
from seqserve.servicers.target_texts import Layers
from seqserve.task_record import (
    SOURCE_LANGUAGE,
    TARGET_LANGUAGE,
    GenerationRecord,
    LanguageRecord,
    TargetMode,
)
from seqserve.v1 import attention_pb2, generation_pb2

_NUM_SUGGESTIONS = 5
_CODE_BEGINNING = ">>"
"""Of the codes that multilingual Marian models read at the start of a source, ``>>fra<<``."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """From which language to which, in tokens."""

    source_prefix: tuple[int, ...] = ()
    """Before the tokens of the text."""
    source_suffix: tuple[int, ...] = ()
    """After the tokens of the text."""
    decoder_start_token_id: int
    forced_bos_token_id: int | None = None
    """The target language, where the first token says it."""


def resolve_direction(
    message: generation_pb2.GenerateInput
    | generation_pb2.ScoreTargetsInput
    | attention_pb2.AttendInput,
    field: str,
    record: GenerationRecord,
    *,
    bos_chosen_by: str | None,
) -> Direction:
    """Looks the languages of an input up.

    Args:
        message: The input.
        field: Its path in the request.
        record: What the model knows.
        bos_chosen_by: The field in which the request names the first token itself, or None.

    Raises:
        InvalidRequestError: A language is unknown, missing, or set where it has no effect.
    """
    languages = record.languages
    if languages is None:
        for name in (SOURCE_LANGUAGE, TARGET_LANGUAGE):
            _check_unset(message, field, name, "the model is not told languages")
        return Direction(decoder_start_token_id=record.decoder_start_token_id)
    is_tokenized = message.WhichOneof("source") == "token_ids"
    if is_tokenized:
        _check_unset(message, field, SOURCE_LANGUAGE, "token ids are taken as they are")
        if languages.target_mode is TargetMode.SOURCE:
            _check_unset(message, field, TARGET_LANGUAGE, "token ids are taken as they are")
    if languages.target_mode is TargetMode.SOURCE and message.text.startswith(_CODE_BEGINNING):
        raise InvalidRequestError(
            f"{field}.text",
            f"`{field}.text` begins with a language code; name it in `target_language` instead",
        )
    tokens: dict[str, int] = {}
    if languages.source and not is_tokenized:
        code = message.source_language or languages.default_source
        tokens[SOURCE_LANGUAGE] = _find(code, languages.source, f"{field}.{SOURCE_LANGUAGE}")
    elif not languages.source:
        _check_unset(message, field, SOURCE_LANGUAGE, "the model reads every language unnamed")
    if bos_chosen_by is not None and languages.target_mode is TargetMode.FORCED_BOS:
        _check_unset(message, field, TARGET_LANGUAGE, f"`{bos_chosen_by}` takes its place")
    elif languages.target and not (is_tokenized and languages.target_mode is TargetMode.SOURCE):
        code = message.target_language or languages.default_target
        tokens[TARGET_LANGUAGE] = _find(code, languages.target, f"{field}.{TARGET_LANGUAGE}")
    return _to_direction(record, languages, tokens, is_tokenized=is_tokenized)


def find_bos_chooser(message: generation_pb2.GenerateInput, layers: Layers) -> str | None:
    """The field in which a request says the first token of a target itself, or None.

    Raises:
        InvalidRequestError: Two fields do.
    """
    paths = [path for layer, path in layers if layer.HasField("forced_bos_token_id")]
    if message.WhichOneof("target_prefix") != "target_prefix_token_ids":
        return "forced_bos_token_id" if paths else None
    if paths:
        field = f"{paths[-1]}.forced_bos_token_id"
        raise InvalidRequestError(
            field,
            "`forced_bos_token_id` has no effect with `target_prefix_token_ids`, which begin with "
            "the first token; leave one of them out",
        )
    return "target_prefix_token_ids"


def _to_direction(
    record: GenerationRecord,
    languages: LanguageRecord,
    tokens: dict[str, int],
    *,
    is_tokenized: bool,
) -> Direction:
    start, forced = record.decoder_start_token_id, None
    target = tokens.get(TARGET_LANGUAGE)
    if target is not None and languages.target_mode is TargetMode.DECODER_START:
        start = target
    if target is not None and languages.target_mode is TargetMode.FORCED_BOS:
        forced = target
    if is_tokenized:
        return Direction(decoder_start_token_id=start, forced_bos_token_id=forced)
    return Direction(
        source_prefix=_fill(languages.source_prefix, tokens),
        source_suffix=_fill(languages.source_suffix, tokens),
        decoder_start_token_id=start,
        forced_bos_token_id=forced,
    )


def _fill(parts: tuple[int | str, ...], tokens: dict[str, int]) -> tuple[int, ...]:
    return tuple(tokens[part] if isinstance(part, str) else part for part in parts)


def _find(code: str | None, codes: dict[str, int], field: str) -> int:
    if not code:
        raise InvalidRequestError(
            field, f"`{field}` must be set; {_describe('', codes)}, and there is no default"
        )
    if code not in codes:
        raise InvalidRequestError(
            field, f"`{field}` is {code!r}, which the model does not know; {_describe(code, codes)}"
        )
    return codes[code]


def _describe(code: str, codes: dict[str, int]) -> str:
    """The codes most like the given one, or all if they are few."""
    if len(codes) <= _NUM_SUGGESTIONS:
        return f"it knows {', '.join(sorted(codes))}"
    near = difflib.get_close_matches(code, sorted(codes), n=_NUM_SUGGESTIONS, cutoff=0.0)
    return f"of its {len(codes)} languages the nearest are {', '.join(near)}"


def _check_unset(
    message: generation_pb2.GenerateInput
    | generation_pb2.ScoreTargetsInput
    | attention_pb2.AttendInput,
    field: str,
    name: str,
    reason: str,
) -> None:
    if getattr(message, name):
        raise InvalidRequestError(f"{field}.{name}", f"`{field}.{name}` must not be set: {reason}")
