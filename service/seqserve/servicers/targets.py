"""What a request says about targets in words: how they begin, and what they must not contain."""

import asyncio
import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence as Items

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.registry import ServedModel
from seqserve.sequence import GenerateOptions
from seqserve.servicers.requests import INLINE_BYTES, check_text
from seqserve.task_record import GenerationRecord
from seqserve.tokenizer import Tokenizer
from seqserve.v1 import generation_pb2

_MAX_SUPPRESSED_TOKENS = 1024
_MAX_SUPPRESSED_SEQUENCES = 256
_MAX_SUPPRESSED_LENGTH = 64
"""Tokens of one suppressed sequence."""
_MAX_SUPPRESSED_BYTES = 256
"""Of the text of one suppressed sequence."""
_SIGN = "-"
"""Stands before a text to see how it is tokenized within a word."""

Layers = list[tuple[generation_pb2.GenerateOptions, str]]
"""Option messages with the path of their field; later ones override earlier ones."""


class TargetTexts:
    """The texts about targets of one request, tokenized once each."""

    def __init__(self, tokens: dict[str, tuple[int, ...]]) -> None:
        self._tokens = tokens

    def of_prefix(self, text: str) -> tuple[int, ...]:
        """The tokens of a target prefix."""
        return self._tokens[text]

    def of_suppressed(self, text: str) -> set[tuple[int, ...]]:
        """How a text is tokenized at the beginning, behind a space, and within a word."""
        found = {self._tokens[form] for form in _forms(text)[:2]}
        sign, signed = self._tokens[_SIGN], self._tokens[_SIGN + text]
        if signed[: len(sign)] == sign:
            found.add(signed[len(sign) :])
        return found - {()}


def _forms(text: str) -> list[str]:
    return [text, f" {text}", _SIGN + text, _SIGN]


async def tokenize_targets(
    model: ServedModel,
    inputs: Items[tuple[generation_pb2.GenerateInput, str]],
    layers: Iterable[tuple[generation_pb2.GenerateOptions, str]],
    config: ServerConfig,
) -> TargetTexts:
    """Tokenizes all texts about targets, off the event loop unless they are short.

    Args:
        model: Whose tokenizer of targets to use.
        inputs: The inputs with their paths.
        layers: All options of the request and of its inputs.
        config: Limits of the server.

    Raises:
        InvalidRequestError: A text is empty or too long, or there are too many.
    """
    texts: set[str] = set()
    for message, field in inputs:
        if message.WhichOneof("target_prefix") == "target_prefix_text":
            check_text(message.target_prefix_text, f"{field}.target_prefix_text", config)
            texts.add(message.target_prefix_text)
    for options, path in layers:
        _check_count(
            len(options.suppressed_token_ids),
            f"{path}.suppressed_token_ids",
            _MAX_SUPPRESSED_TOKENS,
        )
        field = f"{path}.suppressed_sequences"
        _check_count(len(options.suppressed_sequences), field, _MAX_SUPPRESSED_SEQUENCES)
        for index, sequence in enumerate(options.suppressed_sequences):
            if sequence.WhichOneof("sequence") == "text":
                _check_suppressed_text(sequence.text, f"{field}[{index}].text", config)
                texts.update(_forms(sequence.text))
    if sum(map(len, texts)) <= INLINE_BYTES:
        return TargetTexts(_tokenize(model.target_tokenizer, texts))
    return TargetTexts(await asyncio.to_thread(_tokenize, model.target_tokenizer, texts))


def _tokenize(tokenizer: Tokenizer, texts: set[str]) -> dict[str, tuple[int, ...]]:
    return {text: tokenizer.encode_plain(text) for text in texts}


def _check_count(count: int, field: str, limit: int) -> None:
    if count > limit:
        raise InvalidRequestError(
            field, f"`{field}` must hold at most {limit} entries, but holds {count}"
        )


def _check_suppressed_text(text: str, field: str, config: ServerConfig) -> None:
    check_text(text, field, config)
    size = len(text.encode("utf-8"))
    if size > _MAX_SUPPRESSED_BYTES:
        raise InvalidRequestError(
            field, f"`{field}` must have at most {_MAX_SUPPRESSED_BYTES} bytes, but has {size}"
        )


def suppress(
    options: GenerateOptions, layers: Layers, texts: TargetTexts, record: GenerationRecord
) -> GenerateOptions:
    """Adds to what the model never generates what the request does not want.

    Raises:
        InvalidRequestError: A token is not in the vocabulary, or a sequence has no tokens, too
            many, or is the end token alone.
    """
    token_ids: set[int] = set()
    sequences: set[tuple[int, ...]] = set()
    for message, path in reversed(layers):
        if message.suppressed_token_ids and not token_ids:
            field = f"{path}.suppressed_token_ids"
            _check_tokens(message.suppressed_token_ids, field, record)
            token_ids.update(message.suppressed_token_ids)
        if message.suppressed_sequences and not sequences:
            for index, sequence in enumerate(message.suppressed_sequences):
                field = f"{path}.suppressed_sequences[{index}]"
                sequences |= _read_sequence(sequence, field, texts, record)
    token_ids |= {sequence[0] for sequence in sequences if len(sequence) == 1}
    sequences = {sequence for sequence in sequences if len(sequence) > 1}
    return dataclasses.replace(
        options,
        suppressed_tokens=(*options.suppressed_tokens, *sorted(token_ids)),
        suppressed_sequences=(*options.suppressed_sequences, *sorted(sequences)),
    )


def _read_sequence(
    sequence: generation_pb2.SuppressedSequence,
    field: str,
    texts: TargetTexts,
    record: GenerationRecord,
) -> set[tuple[int, ...]]:
    """The sequences of tokens that one entry means."""
    match sequence.WhichOneof("sequence"):
        case "text":
            field = f"{field}.text"
            found = texts.of_suppressed(sequence.text)
            if not found:
                raise InvalidRequestError(
                    field, f"`{field}` has no tokens: the model's tokenizer drops all of it"
                )
        case "token_ids":
            field = f"{field}.token_ids"
            token_ids = sequence.token_ids.values
            if not token_ids:
                raise InvalidRequestError(field, f"`{field}` must not be empty")
            if len(token_ids) > _MAX_SUPPRESSED_LENGTH:
                raise InvalidRequestError(
                    field,
                    f"`{field}` must have at most {_MAX_SUPPRESSED_LENGTH} tokens, but has "
                    f"{len(token_ids)}",
                )
            _check_tokens(token_ids, f"{field}.values", record)
            found = {tuple(token_ids)}
        case _:
            raise InvalidRequestError(field, f"`{field}` must set `text` or `token_ids`")
    if (record.eos_token_id,) in found:
        raise InvalidRequestError(
            field,
            f"`{field}` is the end token alone; name it in `suppressed_token_ids`, or set "
            "`min_new_tokens`",
        )
    return found


def begin_with_prefix(
    options: GenerateOptions,
    message: generation_pb2.GenerateInput,
    field: str,
    texts: TargetTexts,
    record: GenerationRecord,
    *,
    is_limit_chosen: bool,
) -> GenerateOptions:
    """Adds the target prefix of an input, if it has one.

    Args:
        options: Of the input, with the token that is forced to be the first.
        message: The input.
        field: Its path in the request.
        texts: Its texts, tokenized.
        record: Limits of the model.
        is_limit_chosen: Whether the request sets ``max_new_tokens``.

    Raises:
        InvalidRequestError: The prefix has no tokens, one that is not allowed, or too many.
    """
    name = message.WhichOneof("target_prefix")
    if name is None:
        return options
    field = f"{field}.{name}"
    forced = () if options.forced_bos_token_id is None else (options.forced_bos_token_id,)
    if name == "target_prefix_text":
        tokens = texts.of_prefix(message.target_prefix_text)
        if not tokens:
            raise InvalidRequestError(
                field, f"`{field}` has no tokens: the model's tokenizer drops all of it"
            )
        prefix = (*forced, *tokens)
    else:
        token_ids = message.target_prefix_token_ids.values
        if not token_ids:
            raise InvalidRequestError(field, f"`{field}` must not be empty")
        prefix = tuple(token_ids[: record.max_target_length])
        _check_tokens(prefix, f"{field}.values", record)
    left = record.max_target_length - len(prefix)
    if left < 1:
        raise InvalidRequestError(
            field,
            f"`{field}` must have at most {record.max_target_length - 1} tokens, a forced first "
            "token included, so that one is left to generate; shorten it",
        )
    if record.eos_token_id in prefix:
        raise InvalidRequestError(
            field, f"`{field}` must not hold the end token {record.eos_token_id}; leave it out"
        )
    if is_limit_chosen and options.max_new_tokens > left:
        raise InvalidRequestError(
            field,
            f"`{field}` has {len(prefix)} tokens, so that `max_new_tokens` must be at most {left}, "
            f"but it is {options.max_new_tokens}: a target has at most {record.max_target_length} "
            "tokens; shorten the prefix or lower `max_new_tokens`",
        )
    max_new_tokens = min(options.max_new_tokens, left)
    return dataclasses.replace(
        options,
        target_prefix=prefix,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min(options.min_new_tokens, max_new_tokens),
    )


def _check_tokens(token_ids: Iterable[int], field: str, record: GenerationRecord) -> None:
    size = record.target_vocabulary_size
    for index, token in enumerate(token_ids):
        if not 0 <= token < size:
            raise InvalidRequestError(
                f"{field}[{index}]",
                f"`{field}[{index}]` must be at least 0 and below {size}, but is {token}",
            )
