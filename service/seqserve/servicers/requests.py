"""What all servicers do with a request: tokenize its inputs, run its sequences."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence as Items
from functools import partial
from typing import NamedTuple

from google.protobuf import duration_pb2

from seqserve.admission import Places
from seqserve.call_record import current_call
from seqserve.errors import DeadlineError, InvalidRequestError, OverloadedError
from seqserve.sequence import Answer, Priority, Sequence
from seqserve.served_model import ServedModel
from seqserve.servicers.grant import check_priority
from seqserve.servicers.input_check import check_length, check_tokens
from seqserve.servicers.offloading import off_loop
from seqserve.time_limit import overdue_message
from seqserve.tokenizer import Tokenizer
from seqserve.v1 import priority_pb2

_PRIORITIES: dict[int, Priority] = {
    priority_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    priority_pb2.PRIORITY_LOW: Priority.LOW,
    priority_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    priority_pb2.PRIORITY_HIGH: Priority.HIGH,
}


_PATIENCE_SECONDS = 0.05
"""How much later than its deadline a call may end, so that the worker can say what became of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One input after tokenizing."""

    tokens: tuple[int, ...]
    num_truncated: int


def resolve_priority(value: int) -> Priority:
    """The class of a request.

    Raises:
        InvalidRequestError: There is no such class.
        PermissionDeniedError: It is not for the caller's token.
    """
    if value not in _PRIORITIES:
        known = ", ".join(f"{number} ({name})" for name, number in priority_pb2.Priority.items())
        raise InvalidRequestError("priority", f"`priority` must be one of {known}, but is {value}")
    return check_priority(_PRIORITIES[value])


class Frame(NamedTuple):
    """Tokens around those of a text."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]


async def tokenize(
    model: ServedModel,
    texts: Items[str],
    fields: Items[str],
    *,
    truncate: bool,
    frames: Items[Frame] | None = None,
) -> list[Source]:
    """Tokenizes checked texts, off the event loop unless they are short.

    Args:
        model: Whose tokenizer and limit to use.
        texts: The texts.
        fields: Where each comes from.
        truncate: Whether texts that are too long are cut.
        frames: Tokens to put around each text, within the limit and never cut; None for nothing.

    Raises:
        InvalidRequestError: A text has more tokens than the model reads and ``truncate`` is off.
    """
    tokenizer, limit = model.source_tokenizer, model.manifest.max_source_length
    if frames is None:
        frames = [Frame((), ())] * len(texts)
    size = sum(map(len, texts))
    sources = await off_loop(size, partial(_encode, tokenizer, texts, frames, limit))
    for source, field in zip(sources, fields, strict=True):
        check_tokens(source.tokens, field)
        if source.num_truncated and not truncate:
            check_length(len(source.tokens) + source.num_truncated, limit, field)
    return sources


def _encode(
    tokenizer: Tokenizer, texts: Items[str], frames: Items[Frame], limit: int
) -> list[Source]:
    sources = []
    for text, (prefix, suffix) in zip(texts, frames, strict=True):
        tokens, num_cut = tokenizer.encode_truncated(text, limit - len(prefix) - len(suffix))
        sources.append(Source((*prefix, *tokens, *suffix), num_cut))
    return sources


@contextlib.contextmanager
def admitted(model: ServedModel, num_sequences: int) -> Iterator[Places]:
    """Holds places for the sequences of a request while it is tokenized and run.

    Raises:
        OverloadedError: Too much is outstanding.
    """
    try:
        places = model.admission.admit(num_sequences)
    except OverloadedError:
        model.metrics.observe_rejection("queue_full")
        raise
    with places:
        yield places


@contextlib.contextmanager
def submitted(
    model: ServedModel, sequences: list[Sequence]
) -> Iterator[list[asyncio.Future[Answer]]]:
    """Hands sequences to the worker; those unanswered at the end are abandoned.

    Raises:
        InvalidRequestError: They have more tokens than may ever be outstanding.
        OverloadedError: Too many tokens are outstanding.
    """
    places = admit_tokens(model, sum(sequence.source_length for sequence in sequences))
    futures: list[asyncio.Future[Answer]] = []
    for sequence in sequences:
        future = sequence.future
        assert isinstance(future, asyncio.Future)
        future.add_done_callback(partial(_release, places, sequence.source_length))
        futures.append(future)
    call = current_call()
    if call is not None:
        call.begin_sequences(sequences)
    try:
        model.submit(sequences)
        yield futures
    finally:
        for future in futures:
            future.cancel()
        if call is not None:
            call.end_sequences(sequences)


def admit_tokens(model: ServedModel, num_tokens: int) -> Places:
    """Takes places for the tokens of a request.

    Raises:
        InvalidRequestError: They are more than may ever be outstanding.
        OverloadedError: Too many tokens are outstanding.
    """
    limit = model.token_admission.max_outstanding
    if num_tokens > limit:
        # Such a request would be told to try again later, for ever.
        raise InvalidRequestError(
            "",
            f"a request must have at most {limit} tokens in all (max_outstanding_tokens), but has "
            f"{num_tokens}; send fewer or shorter inputs",
        )
    try:
        return model.token_admission.admit(num_tokens)
    except OverloadedError:
        model.metrics.observe_rejection("tokens_full")
        raise


def _release(places: Places, num_tokens: int, _: asyncio.Future[Answer]) -> None:
    places.release(num_tokens)


async def run(model: ServedModel, sequences: list[Sequence]) -> list[Answer]:
    """Submits sequences and waits for all answers; the first error ends the wait.

    The worker answers what is late. Should it be stuck in a computation, the wait ends a little
    after the deadline all the same.
    """
    last = max(sequences, key=lambda sequence: sequence.deadline)
    try:
        async with asyncio.timeout_at(last.deadline + _PATIENCE_SECONDS):
            with submitted(model, sequences) as futures:
                return await asyncio.gather(*futures)
    except TimeoutError as error:
        raise DeadlineError(overdue_message(last.server_limit_seconds)) from error


def to_duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a message."""
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(max(0, round(seconds * 1e9)))
    return duration
