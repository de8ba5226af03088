"""What one call of a load is, for each task: texts go in, what there is to count comes out."""

import dataclasses
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Sequence as Items
from typing import Any, Protocol

from seqserve.client import AsyncClient, Priority, Timing


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call."""

    input_count: int
    token_count: int
    """Of the first hypotheses where targets are generated; else of what was read."""
    timings: tuple[Timing, ...]
    """What the server says of each input."""
    truncated_token_count: int
    """That were cut, with ``truncate``."""
    first_token_seconds: float | None = None
    """Until the first piece of a stream; None of other calls."""
    inter_token_seconds: tuple[float, ...] = ()
    """Between the pieces of a stream, once for each token of theirs."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallSettings:
    """What all calls of a load have in common."""

    model: str
    version: str
    truncate: bool
    priority: Priority
    query: str | None = None
    """What documents are ranked for; None for other tasks."""
    decoding: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of ``generate``."""

    def shared(self) -> dict[str, Any]:
        """What calls of every task take."""
        return {
            "model": self.model,
            "version": self.version,
            "truncate": self.truncate,
            "priority": self.priority,
        }


MakeCall = Callable[[AsyncClient, CallSettings, Items[str]], Awaitable[Answer]]
"""Makes one call with these texts; raises CallError."""


class _Encoded(Protocol):
    """What the results of encoder models have in common."""

    @property
    def token_count(self) -> int: ...

    @property
    def truncated_token_count(self) -> int: ...

    @property
    def timing(self) -> Timing: ...


async def _generate(client: AsyncClient, settings: CallSettings, texts: Items[str]) -> Answer:
    results = await client.generate(texts, **settings.shared(), **settings.decoding)
    return Answer(
        len(texts),
        sum(len(result.hypotheses[0].token_ids) for result in results),
        tuple(result.timing for result in results),
        sum(result.truncated_token_count for result in results),
    )


async def make_stream(client: AsyncClient, settings: CallSettings, texts: Items[str]) -> Answer:
    """Generates from one text, piece by piece; a :data:`MakeCall`."""
    (text,) = texts
    sent_at = time.perf_counter()
    arrivals: list[tuple[float, int]] = []
    stream = client.generate_stream(text, **settings.shared(), **settings.decoding)
    async with stream:
        async for piece in stream:
            if piece.token_ids:
                arrivals.append((time.perf_counter() - sent_at, len(piece.token_ids)))
    gaps = [
        (later - earlier) / num_tokens
        for (earlier, _), (later, num_tokens) in itertools.pairwise(arrivals)
        for _ in range(num_tokens)
    ]
    result = stream.result
    return Answer(
        1,
        len(result.hypotheses[0].token_ids),
        (result.timing,),
        result.truncated_token_count,
        arrivals[0][0] if arrivals else None,
        tuple(gaps),
    )


async def _embed(client: AsyncClient, settings: CallSettings, texts: Items[str]) -> Answer:
    result = await client.embed(texts, **settings.shared())
    num_cut = sum(result.truncated_token_counts)
    return Answer(len(texts), sum(result.token_counts), result.timings, num_cut)


async def _classify(client: AsyncClient, settings: CallSettings, texts: Items[str]) -> Answer:
    return _to_answer(await client.classify(list(texts), **settings.shared()))


async def _tag(client: AsyncClient, settings: CallSettings, texts: Items[str]) -> Answer:
    return _to_answer(await client.classify_tokens(texts, **settings.shared()))


async def _rerank(client: AsyncClient, settings: CallSettings, texts: Items[str]) -> Answer:
    return _to_answer(await client.rerank(settings.query or "", texts, **settings.shared()))


async def _fill_mask(client: AsyncClient, settings: CallSettings, texts: Items[str]) -> Answer:
    return _to_answer(await client.fill_mask(texts, **settings.shared()))


def _to_answer(results: Items[_Encoded]) -> Answer:
    return Answer(
        len(results),
        sum(result.token_count for result in results),
        tuple(result.timing for result in results),
        sum(result.truncated_token_count for result in results),
    )


CALLS: dict[str, MakeCall] = {
    "generate": _generate,
    "embed": _embed,
    "classify": _classify,
    "tag": _tag,
    "rerank": _rerank,
    "fill-mask": _fill_mask,
}
"""By the name of the command that makes the same call once."""

TASKS = {
    "generate": "generate",
    "embed": "embed",
    "classify": "classify",
    "classify_tokens": "tag",
    "rerank": "rerank",
    "fill_mask": "fill-mask",
}
"""Which of them a task of a model needs."""
