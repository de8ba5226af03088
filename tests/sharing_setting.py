"""Shared answers over one fake engine, and sequences that share theirs."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

from fakes import FakeEngine, make_sequence
from running_worker import PATIENCE_SECONDS, running
from seqserve.lanes import Lanes
from seqserve.metrics import Metrics
from seqserve.model_metrics import ModelMetrics
from seqserve.response_cache import ResponseCache
from seqserve.sequence import Generation, Sequence
from seqserve.shared_answers import SharedAnswers
from seqserve.sharing import Sharing


@dataclasses.dataclass
class Setting:
    """Shared answers over one fake engine."""

    engine: FakeEngine
    answers: SharedAnswers
    metrics: Metrics
    cache: ResponseCache

    def count(self, name: str) -> float:
        """A counter of the model."""
        labels = {"model_name": "fake", "model_version": "1"}
        value = self.metrics.registry.get_sample_value(f"seqserve_{name}_total", labels)
        assert value is not None
        return value

    @property
    def num_computed(self) -> int:
        """Sequences that the engine was given."""
        return len(self.engine.seen)

    def submit(self, *sequences: Sequence) -> None:
        """Submits each in a call of its own."""
        for sequence in sequences:
            self.answers.submit([sequence])

    async def answer(self, sequence: Sequence) -> Any:
        """Submits a sequence and waits for its answer."""
        self.submit(sequence)
        return await wait_for(sequence)

    def close_gate(self) -> None:
        """Has the next batch wait in the engine."""
        self.engine.arrived.clear()
        self.engine.gate.clear()


@contextlib.asynccontextmanager
async def sharing(*, deduplicates: bool = True, keeps: bool = True) -> AsyncIterator[Setting]:
    """A running worker behind shared answers."""
    engine, metrics = FakeEngine(), Metrics()
    cache = ResponseCache(1_000_000, metrics)
    async with running(engine) as worker:
        answers = SharedAnswers(
            Lanes([worker]),
            ModelMetrics(metrics, "fake", "1"),
            cache if keeps else None,
            deduplicates=deduplicates,
        )
        yield Setting(engine, answers, metrics, cache)
        assert answers._computations == {}


def make(**settings: Any) -> Sequence:
    """A sequence that shares its answer, unless it is told otherwise."""
    share = settings.pop("sharing", Sharing())
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    sequence = make_sequence(future=future, submitted_at=time.monotonic(), **settings)
    sequence.sharing = share
    return sequence


def future_of(sequence: Sequence) -> asyncio.Future[Any]:
    """What its caller waits for."""
    assert isinstance(sequence.future, asyncio.Future)
    return sequence.future


async def wait_for(sequence: Sequence) -> Any:
    """The answer of a sequence, or its error raised."""
    return await asyncio.wait_for(future_of(sequence), PATIENCE_SECONDS)


def tokens(answer: Any) -> tuple[int, ...]:
    """Those of the first hypothesis."""
    assert isinstance(answer, Generation)
    found: tuple[int, ...] = answer.hypotheses[0].tokens
    return found
