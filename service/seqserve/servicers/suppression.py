"""What targets must not contain: what the model never generates, and what a request adds."""

import dataclasses

from seqserve.errors import InvalidRequestError
from seqserve.generate_options import GenerateOptions
from seqserve.servicers.input_check import check_token_ids, check_tokens
from seqserve.servicers.target_texts import Layers, TargetTexts
from seqserve.task_record import GenerationRecord
from seqserve.v1 import generation_pb2

_MAX_SUPPRESSED_LENGTH = 64
"""Tokens of one suppressed sequence."""


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
            check_token_ids(message.suppressed_token_ids, record.target_vocabulary_size, field)
            token_ids.update(message.suppressed_token_ids)
        if message.suppressed_sequences and not sequences:
            for index, sequence in enumerate(message.suppressed_sequences):
                field = f"{path}.suppressed_sequences[{index}]"
                sequences |= _read_sequence(sequence, field, texts, record)
    if not token_ids and not sequences:
        return options  # as most requests do; a copy takes longer than all else here
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
            check_tokens(found, field)
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
            check_token_ids(token_ids, record.target_vocabulary_size, f"{field}.values")
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
