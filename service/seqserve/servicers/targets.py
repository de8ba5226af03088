"""The targets of a request to score, as the tokens the model would have to write."""

from collections.abc import Sequence as Items
from functools import partial

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.served_model import ServedModel
from seqserve.servicers.input_check import (
    check_count,
    check_text,
    check_token_count,
    check_token_ids,
    check_tokens,
)
from seqserve.servicers.languages import Direction
from seqserve.servicers.offloading import off_loop
from seqserve.task_record import GenerationRecord
from seqserve.v1 import generation_pb2


def check_counts(inputs: Items[generation_pb2.ScoreTargetsInput], config: ServerConfig) -> None:
    """Refuses requests with nothing or too much in them, before any of it is read."""
    check_count(len(inputs), "inputs", config)
    for index, one in enumerate(inputs):
        check_count(len(one.targets), f"inputs[{index}].targets", config)
    num_targets = sum(len(one.targets) for one in inputs)
    if num_targets > config.max_inputs_per_request:
        raise InvalidRequestError(
            "inputs",
            f"`inputs` must hold at most {config.max_inputs_per_request} targets in all "
            f"(max_inputs_per_request), but hold {num_targets}",
        )
    num_tokens = sum(
        len(one.token_ids.values) + sum(len(target.token_ids.values) for target in one.targets)
        for one in inputs
    )
    check_token_count(num_tokens, "inputs", config)


async def read_targets(
    model: ServedModel,
    inputs: Items[generation_pb2.ScoreTargetsInput],
    directions: Items[Direction],
    config: ServerConfig,
) -> list[list[tuple[int, ...]]]:
    """The tokens of each target of each input, off the event loop unless texts are short.

    Raises:
        InvalidRequestError: A target is absent, too long, or holds ids the model does not have.
    """
    num_characters = 0
    for index, one in enumerate(inputs):
        for position, target in enumerate(one.targets):
            field = f"inputs[{index}].targets[{position}]"
            if target.WhichOneof("target") is None:
                raise InvalidRequestError(field, f"`{field}` must set `text` or `token_ids`")
            if target.WhichOneof("target") == "text":
                check_text(target.text, f"{field}.text", config)
                num_characters += len(target.text)
    return await off_loop(num_characters, partial(_tokenize, model, inputs, directions))


def _tokenize(
    model: ServedModel,
    inputs: Items[generation_pb2.ScoreTargetsInput],
    directions: Items[Direction],
) -> list[list[tuple[int, ...]]]:
    return [
        [
            read_target(model, target, direction, f"inputs[{index}].targets[{position}]")
            for position, target in enumerate(one.targets)
        ]
        for index, (one, direction) in enumerate(zip(inputs, directions, strict=True))
    ]


def read_target(
    model: ServedModel, target: generation_pb2.Target, direction: Direction, field: str
) -> tuple[int, ...]:
    """The tokens of one target, which sets text or token ids.

    Raises:
        InvalidRequestError: It is empty, too long, or holds ids the model does not have.
    """
    record = model.manifest.generation
    assert record is not None
    limit = record.max_target_length
    if target.WhichOneof("target") == "text":
        field = f"{field}.text"
        ids = model.target_tokenizer.encode(target.text)
        check_tokens(ids, field)
        tokens = _frame(ids, direction, record)
        length = len(tokens)
    else:
        field = f"{field}.token_ids"
        length = len(target.token_ids.values)
        tokens = tuple(target.token_ids.values[: limit + 1])
    if not length:
        raise InvalidRequestError(field, f"`{field}` must not be empty")
    if length > limit:
        raise InvalidRequestError(
            field,
            f"`{field}` must have at most {limit} tokens (the model's max_target_length), but has "
            f"{length}; targets are never cut: shorten it",
        )
    check_token_ids(tokens, record.target_vocabulary_size, f"{field}.values")
    return tokens


def _frame(token_ids: list[int], direction: Direction, record: GenerationRecord) -> tuple[int, ...]:
    """The tokens of a text with the language before them and the end after, as in training."""
    prefix = () if direction.forced_bos_token_id is None else (direction.forced_bos_token_id,)
    if tuple(token_ids[: len(prefix)]) == prefix:
        prefix = ()
    has_end = bool(token_ids) and token_ids[-1] == record.eos_token_id
    return (*prefix, *token_ids, *(() if has_end else (record.eos_token_id,)))
