"""The source and the target of a request about attention, as tokens with their places."""

import dataclasses
from collections.abc import Callable
from functools import partial

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.served_model import ServedModel
from seqserve.servicers.cutting import Cutting
from seqserve.servicers.input_check import (
    check_length,
    check_text,
    check_token_count,
    check_tokens,
)
from seqserve.servicers.languages import Direction
from seqserve.servicers.offloading import off_loop
from seqserve.servicers.passages import Text, read_passages
from seqserve.servicers.prompts import resolve_prompt
from seqserve.servicers.sources import read_token_ids
from seqserve.servicers.targets import read_target
from seqserve.task_record import SOURCE_LANGUAGE, TARGET_LANGUAGE, Task
from seqserve.token_place import (
    CutTokens,
    PlacedTokens,
    place_decoded,
    place_token,
    read_placed,
)
from seqserve.tokenizer import Tokenizer, TokenSpan
from seqserve.v1 import attention_pb2, generation_pb2

CheckLength = Callable[[int], None]
"""Refuses so many tokens if their weights are too many: before they are placed in the text that
they decode to, which takes the square of their number."""

_PAIR_TASKS = {Task.CLASSIFY, Task.RERANK}
"""Of models that read pairs."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttendedSource:
    """A source as the model reads it."""

    placed: PlacedTokens
    """In the text, or in the first of two."""
    token_types: tuple[int, ...] = ()
    """Empty means type 0."""
    pair_start: int = 0
    """Index of the first token of the second text; 0 without one."""
    num_truncated: int = 0

    @property
    def tokens(self) -> tuple[int, ...]:
        """Their ids."""
        return ids_of(self.placed)


def ids_of(placed: PlacedTokens) -> tuple[int, ...]:
    """The ids of placed tokens."""
    return tuple(span.token_id for span in placed.spans)


async def read_attended_source(
    model: ServedModel,
    request: attention_pb2.AttendRequest,
    direction: Direction | None,
    config: ServerConfig,
    check: CheckLength,
) -> AttendedSource:
    """Checks and tokenizes the source.

    Args:
        model: What reads it.
        request: With the source, at ``input``.
        direction: Its languages; None for models that only encode.
        config: Limits of the server.
        check: Called with the number of tokens.

    Raises:
        InvalidRequestError: It is absent, too long, holds ids the model does not have, or has a
            part that would have no effect.
    """
    message, truncate = request.input, request.truncate
    if direction is None:
        for name in (SOURCE_LANGUAGE, TARGET_LANGUAGE):
            if getattr(message, name):
                raise InvalidRequestError(
                    f"input.{name}",
                    f"`input.{name}` must not be set: the model is not told languages",
                )
    _check_pair(model, message, config)
    prompt = _find_prompt(model, request)
    tokenizer = model.source_tokenizer
    match message.WhichOneof("source"):
        case "text":
            check_text(message.text, "input.text", config)
        case "token_ids":
            field, ids = "input.token_ids", message.token_ids.values
            check_token_count(len(ids), field, config)
            source = read_token_ids(model, ids, field, truncate)
            check(len(source.tokens))
            placed = await place_ids(tokenizer, source.tokens)
            return AttendedSource(placed=placed, num_truncated=source.num_truncated)
        case _:
            raise InvalidRequestError("input", "`input` must set `text` or `token_ids`")
    if direction is None:
        read = await _read_passage(model, message, prompt, truncate=truncate)
        check(len(read.tokens))
        return read
    spans, num_cut = await place_source(model, message.text, direction)
    check_tokens(spans, "input.text")
    if not truncate:
        check_length(len(spans) + num_cut, model.manifest.max_source_length, "input.text")
    check(len(spans))
    return AttendedSource(placed=PlacedTokens(message.text, spans), num_truncated=num_cut)


async def place_source(model: ServedModel, text: str, direction: Direction) -> CutTokens:
    """The tokens of a text, with those of languages around them, cut if they are too many."""
    tokenizer, limit = model.source_tokenizer, model.manifest.max_source_length
    num_around = len(direction.source_prefix) + len(direction.source_suffix)
    read = partial(read_placed, tokenizer, text, limit - num_around)
    spans, num_cut = await off_loop(len(text), read)
    prefix, suffix = (
        [place_token(tokenizer, token, None) for token in tokens]
        for tokens in (direction.source_prefix, direction.source_suffix)
    )
    return CutTokens([*prefix, *spans, *suffix], num_cut)


async def read_attended_target(
    model: ServedModel,
    message: generation_pb2.Target,
    direction: Direction,
    config: ServerConfig,
    check: CheckLength,
) -> PlacedTokens:
    """Checks and tokenizes a given target, at ``target``; ``check`` is told how long it is.

    Raises:
        InvalidRequestError: It is absent, too long, or holds ids the model does not have.
    """
    tokenizer = model.target_tokenizer
    if message.WhichOneof("target") == "text":
        check_text(message.text, "target.text", config)
        placed = await off_loop(
            len(message.text), partial(_read_target_text, model, message, direction)
        )
        check(len(placed.spans))
        return placed
    if message.WhichOneof("target") is None:
        raise InvalidRequestError("target", "`target` must set `text` or `token_ids`")
    tokens = read_target(model, message, direction, "target")
    check(len(tokens))
    return await place_ids(tokenizer, tokens)


async def place_ids(tokenizer: Tokenizer, token_ids: tuple[int, ...]) -> PlacedTokens:
    """The places of tokens in the text they decode to, off the event loop unless they are few."""
    # Tokens are decoded as often as there are tokens behind them.
    return await off_loop(len(token_ids) ** 2, partial(place_decoded, tokenizer, token_ids))


def _check_pair(
    model: ServedModel, message: attention_pb2.AttendInput, config: ServerConfig
) -> None:
    if not message.text_pair:
        return
    check_text(message.text_pair, "input.text_pair", config)
    if not _PAIR_TASKS & set(model.manifest.tasks):
        raise InvalidRequestError(
            "input.text_pair",
            "`input.text_pair` must not be set: pairs are read by models that classify or rerank",
        )
    if message.WhichOneof("source") == "token_ids":
        raise InvalidRequestError(
            "input.text_pair",
            "`input.text_pair` must not be set with `token_ids`, which are taken as they are",
        )


def _find_prompt(model: ServedModel, request: attention_pb2.AttendRequest) -> str:
    """What ``Embed`` and ``Rerank`` put before texts; empty for nothing.

    Raises:
        InvalidRequestError: The model has no such prompt, or it would have no effect.
    """
    record = model.manifest.embedding or model.manifest.reranking
    if request.HasField("prompt_name"):
        if record is None:
            raise InvalidRequestError(
                "prompt_name",
                "`prompt_name` must not be set: prompts are those of models that embed or rerank",
            )
        if request.input.WhichOneof("source") == "token_ids":
            raise InvalidRequestError(
                "prompt_name",
                "`prompt_name` must not be set with `token_ids`, which are taken as they are",
            )
    return "" if record is None else resolve_prompt(request, record)


async def _read_passage(
    model: ServedModel, message: attention_pb2.AttendInput, prompt: str, *, truncate: bool
) -> AttendedSource:
    """Reads a text or a pair as models do that only encode, with a prompt before it."""
    tokenizer = model.source_tokenizer
    text = Text(prompt + message.text, "input.text", message.text_pair or None)
    if text.pair is not None:
        text = text._replace(others=" with `input.text_pair`")
    (passage,) = await read_passages(model, [text], Cutting(truncate), has_offsets=True)
    spans = []
    for index, (token, place) in enumerate(zip(passage.tokens, passage.offsets, strict=True)):
        is_second = 0 < passage.pair_start <= index
        if place is not None and not is_second:
            start, end = place
            place = (max(0, start - len(prompt)), max(0, end - len(prompt)))
        spans.append(place_token(tokenizer, token, place))
    return AttendedSource(
        placed=PlacedTokens(message.text, spans),
        token_types=passage.types,
        pair_start=passage.pair_start,
        num_truncated=passage.num_truncated,
    )


def _read_target_text(
    model: ServedModel, message: generation_pb2.Target, direction: Direction
) -> PlacedTokens:
    """The tokens of a text, and around them those that are added to it."""
    tokenizer = model.target_tokenizer
    tokens = read_target(model, message, direction, "target")
    own: list[TokenSpan] = tokenizer.spans(message.text)
    num_before = int(tokens[: len(own)] != tuple(span.token_id for span in own))
    num_after = len(tokens) - num_before - len(own)
    around = [place_token(tokenizer, token, None) for token in tokens]
    spans = [*around[:num_before], *own, *around[len(tokens) - num_after :]]
    return PlacedTokens(message.text, spans)
