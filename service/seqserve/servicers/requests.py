"""What all servicers do with a request: check and tokenize its inputs, run its sequences."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Sequence as Items
from functools import partial
from typing import NamedTuple

from google.protobuf import duration_pb2

from seqserve.admission import Places
from seqserve.call_record import current_call
from seqserve.config import ServerConfig
from seqserve.errors import DeadlineError, InvalidRequestError, OverloadedError
from seqserve.sequence import Answer, Priority, Sequence
from seqserve.served_model import ServedModel
from seqserve.servicers.grant import check_priority
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


_PATIENCE_SECONDS = 1.0
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


def check_count(num_inputs: int, field: str, config: ServerConfig) -> None:
    """Refuses requests with no input or too many."""
    if num_inputs == 0:
        raise InvalidRequestError(field, f"`{field}` must not be empty")
    if num_inputs > config.max_inputs_per_request:
        raise InvalidRequestError(
            field,
            f"`{field}` must hold at most {config.max_inputs_per_request} entries "
            f"(max_inputs_per_request), but holds {num_inputs}",
        )


def check_token_count(
    num_tokens: int, field: str, config: ServerConfig, *, found: str = "it holds"
) -> None:
    """Refuses requests with too many tokens to look at each."""
    if num_tokens > config.max_tokens_per_request:
        raise InvalidRequestError(
            field,
            f"`{field}` must hold at most {config.max_tokens_per_request} tokens in all "
            f"(max_tokens_per_request), but {found} {num_tokens}",
        )


def check_token_ids(token_ids: Iterable[int], vocabulary_size: int, field: str) -> None:
    """Refuses ids outside the vocabulary: they would read the embedding of another token."""
    for index, token in enumerate(token_ids):
        if not 0 <= token < vocabulary_size:
            raise InvalidRequestError(
                f"{field}[{index}]",
                f"`{field}[{index}]` must be at least 0 and below {vocabulary_size}, but is "
                f"{token}",
            )


def check_tokens(tokens: Collection[object], field: str) -> None:
    """Refuses texts that nothing is left of."""
    if not tokens:
        raise InvalidRequestError(
            field, f"`{field}` has no tokens: the model's tokenizer drops all of it"
        )


def check_cache(
    model: ServedModel,
    sequence: Sequence,
    field: str,
    *,
    remedy: str = "lower `max_new_tokens`, `num_beams` or `num_return_sequences`",
) -> None:
    """Refuses what could never run: its keys and values alone would exceed the budget."""
    budget = model.budget
    if budget is None:
        return
    num_bytes = budget.bytes_for(sequence.extent)
    if num_bytes > budget.max_bytes:
        num_rows, target_length, source_length = sequence.extent
        raise InvalidRequestError(
            field,
            f"`{field}` needs {num_bytes} bytes of cache ({num_rows} hypotheses of {target_length} "
            f"target tokens and {source_length} source tokens), but a lane has {budget.max_bytes} "
            f"(cache_bytes / lanes); {remedy}, or shorten the source",
        )


def check_text(text: str, field: str, config: ServerConfig) -> None:
    """Refuses empty texts, and those too large to be tokenized."""
    if not text:
        raise InvalidRequestError(field, f"`{field}` must not be empty")
    size = len(text.encode("utf-8"))
    if size > config.max_input_bytes:
        raise InvalidRequestError(
            field,
            f"`{field}` must have at most {config.max_input_bytes} bytes (max_input_bytes), "
            f"but has {size}",
        )


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


def check_length(length: int, limit: int, field: str, *, others: str = "") -> None:
    """Refuses sources that are longer than the model reads.

    Args:
        length: The tokens there are.
        limit: The tokens there may be.
        field: Where the source comes from.
        others: What is read together with it, as in " with `query`".
    """
    if length > limit:
        raise InvalidRequestError(
            field,
            f"`{field}` must have at most {limit} tokens{others}, but has {length}; shorten it, or "
            "set `truncate` to have its end cut",
        )


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
    """Hands sequences to the worker; those unanswered at the end are abandoned."""
    futures: list[asyncio.Future[Answer]] = []
    for sequence in sequences:
        assert isinstance(sequence.future, asyncio.Future)
        futures.append(sequence.future)
    call = current_call()
    if call is not None:
        call.begin_sequences(sequences)
    try:
        model.lanes.submit(sequences)
        yield futures
    finally:
        for future in futures:
            future.cancel()
        if call is not None:
            call.end_sequences(sequences)


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
