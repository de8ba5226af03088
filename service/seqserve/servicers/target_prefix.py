"""What the target of an input begins with."""

import dataclasses

from seqserve.errors import InvalidRequestError
from seqserve.generate_options import GenerateOptions
from seqserve.servicers.input_check import check_token_ids, check_tokens
from seqserve.servicers.target_texts import TargetTexts
from seqserve.task_record import GenerationRecord
from seqserve.v1 import generation_pb2


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
        check_tokens(tokens, field)
        prefix = (*forced, *tokens)
    else:
        token_ids = message.target_prefix_token_ids.values
        if not token_ids:
            raise InvalidRequestError(field, f"`{field}` must not be empty")
        prefix = tuple(token_ids[: record.max_target_length])
        check_token_ids(prefix, record.target_vocabulary_size, f"{field}.values")
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
