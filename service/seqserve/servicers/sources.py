"""The source of each input, given as text or as token ids, as the tokens the model reads."""

from collections.abc import Sequence as Items

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.served_model import ServedModel
from seqserve.servicers.input_check import (
    check_length,
    check_text,
    check_token_count,
    check_token_ids,
)
from seqserve.servicers.languages import Direction
from seqserve.servicers.requests import Frame, Source, tokenize
from seqserve.v1 import generation_pb2

InputMessage = generation_pb2.GenerateInput | generation_pb2.ScoreTargetsInput
"""Messages with a source and its languages."""


async def read_sources(
    model: ServedModel,
    inputs: Items[tuple[InputMessage, str]],
    directions: Items[Direction],
    config: ServerConfig,
    *,
    truncate: bool,
) -> list[Source]:
    """Checks and tokenizes sources.

    Args:
        model: What reads them.
        inputs: Messages with the path of their field.
        directions: The languages of each.
        config: Limits of the server.
        truncate: Whether sources that are too long are cut.

    Raises:
        InvalidRequestError: A source is absent, too long, or holds ids the model does not have.
    """
    num_tokens = sum(len(message.token_ids.values) for message, _ in inputs)
    field = "inputs" if len(inputs) > 1 else f"{inputs[0][1]}.token_ids"
    check_token_count(num_tokens, field, config)
    texts: dict[int, str] = {}
    sources: dict[int, Source] = {}
    for index, (message, field) in enumerate(inputs):
        match message.WhichOneof("source"):
            case "text":
                check_text(message.text, f"{field}.text", config)
                texts[index] = message.text
            case "token_ids":
                sources[index] = read_token_ids(
                    model, message.token_ids.values, f"{field}.token_ids", truncate
                )
            case _:
                raise InvalidRequestError(field, f"`{field}` must set `text` or `token_ids`")
    fields = [f"{inputs[index][1]}.text" for index in texts]
    frames = [
        Frame(directions[index].source_prefix, directions[index].source_suffix) for index in texts
    ]
    tokenized = await tokenize(
        model, list(texts.values()), fields, truncate=truncate, frames=frames
    )
    sources.update(zip(texts, tokenized, strict=True))
    return [sources[index] for index in range(len(inputs))]


def read_token_ids(model: ServedModel, token_ids: Items[int], field: str, truncate: bool) -> Source:
    """Checks token ids, and cuts them where that is allowed.

    Raises:
        InvalidRequestError: There are none or too many, or the model does not have one.
    """
    if not token_ids:
        raise InvalidRequestError(field, f"`{field}` must not be empty")
    limit, length = model.manifest.max_source_length, len(token_ids)
    if not truncate:
        check_length(length, limit, field)
    kept = tuple(token_ids[:limit])
    check_token_ids(kept, model.manifest.source_vocabulary_size, f"{field}.values")
    return Source(kept, length - len(kept))
