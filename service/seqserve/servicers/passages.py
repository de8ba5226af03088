"""The texts of encoder requests as passages: tokenized off the event loop, within the limits."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Items
from typing import NamedTuple

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.passage import PairReader, Passage, read_text, read_texts, read_windows
from seqserve.served_model import ServedModel
from seqserve.servicers.cutting import Cutting
from seqserve.servicers.input_check import check_length, check_tokens
from seqserve.servicers.offloading import off_loop
from seqserve.servicers.requests import admitted
from seqserve.tokenizer import Tokenizer

_PORTION = 64
"""Texts that are tokenized at once: the library makes something of each token of all of them."""


class Text(NamedTuple):
    """A text of a request, or a pair of texts."""

    text: str
    field: str
    """Where it comes from; of a pair, what is named when it is too long."""
    pair: str | None = None
    """The second text of a pair."""
    others: str = ""
    """What is read together with it, for messages."""


async def read_passages(
    model: ServedModel, texts: Items[Text], cutting: Cutting, *, has_offsets: bool = False
) -> list[Passage]:
    """Tokenizes checked texts, each into one passage.

    Args:
        model: Whose tokenizer and longest source count.
        texts: The texts.
        cutting: What becomes of those that are too long.
        has_offsets: Whether somebody asks for the places of tokens.

    Raises:
        InvalidRequestError: A text has more tokens than the model reads and is not to be cut.
    """
    tokenizer, limit = model.source_tokenizer, model.manifest.max_source_length
    passages = await off_loop(
        size_of(texts),
        lambda: list(_read(tokenizer, texts, limit, cutting, has_offsets=has_offsets)),
    )
    for passage, text in zip(passages, texts, strict=True):
        if passage.num_truncated and not cutting.truncate:
            length = len(passage.tokens) + passage.num_truncated
            check_length(length, limit, text.field, others=text.others)
        check_tokens(passage.tokens, text.field)
    return passages


async def read_windowed(
    model: ServedModel, texts: Items[Text], stride: int, config: ServerConfig
) -> list[list[Passage]]:
    """Tokenizes checked texts, each into as many windows as it takes.

    Raises:
        InvalidRequestError: There would be more tokens or windows than one request may have.
    """
    tokenizer, limit = model.source_tokenizer, model.manifest.max_source_length
    windows = await off_loop(
        size_of(texts), lambda: _read_windows(tokenizer, texts, limit, stride, config)
    )
    for one, text in zip(windows, texts, strict=True):
        check_tokens(one[0].tokens, text.field)
    return windows


@contextlib.contextmanager
def admitted_windows(model: ServedModel, windows: Iterable[Items[Passage]]) -> Iterator[None]:
    """Holds places for all windows but the first of each text, which has one already.

    Raises:
        OverloadedError: Too much is outstanding.
    """
    with admitted_more(model, sum(len(one) - 1 for one in windows)):
        yield


@contextlib.contextmanager
def admitted_more(model: ServedModel, num_more: int) -> Iterator[None]:
    """Holds further places, if a request needs any beside those of its inputs.

    Raises:
        OverloadedError: Too much is outstanding.
    """
    if not num_more:
        yield
        return
    with admitted(model, num_more):
        yield


def size_of(texts: Items[Text]) -> int:
    """Characters of texts and their pairs."""
    return sum(len(text.text) + len(text.pair or "") for text in texts)


def _read(
    tokenizer: Tokenizer, texts: Items[Text], limit: int, cutting: Cutting, *, has_offsets: bool
) -> Iterator[Passage]:
    if not has_offsets and all(text.pair is None for text in texts):
        for start in range(0, len(texts), _PORTION):
            portion = [text.text for text in texts[start : start + _PORTION]]
            yield from read_texts(tokenizer, portion, limit, cutting.side)
        return
    # Neighbours often have their first text in common: a query.
    for first, group in itertools.groupby(texts, key=lambda text: text.text):
        reader: PairReader | None = None
        for text in group:
            if text.pair is None:
                yield read_text(tokenizer, first, limit, cutting.side)
                continue
            reader = reader or PairReader(tokenizer, first, limit, cutting.side)
            yield reader.read(text.pair, has_offsets=has_offsets)


def _read_windows(
    tokenizer: Tokenizer, texts: Items[Text], limit: int, stride: int, config: ServerConfig
) -> list[list[Passage]]:
    # With a stride close to the limit there is a window for each token.
    most = max(config.max_inputs_per_request, config.max_tokens_per_request // limit)
    most = min(config.max_outstanding, most)
    counts: list[int] = []

    def check(num_windows: int) -> None:
        counts.append(num_windows)
        if sum(counts) > most:
            field = texts[len(counts) - 1].field
            raise InvalidRequestError(
                field,
                f"the texts up to `{field}` take {sum(counts)} windows, but a request may have at "
                f"most {most}; lower `stride`, or send fewer or shorter texts",
            )

    return [read_windows(tokenizer, text.text, limit, stride, check) for text in texts]
