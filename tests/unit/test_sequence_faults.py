"""A search or its tokenizer that raises: one sequence fails, and nobody else."""

import asyncio
import math
from typing import Any

import pytest
import structlog

from fakes import EOS, START, FakeClock, FakeEngine, make_submission, run_plainly
from running_worker import PATIENCE_SECONDS, make_worker, outcomes
from seqserve.batch import Batch, Outcome
from seqserve.errors import EngineError, UnavailableError
from seqserve.generate_options import GenerateOptions
from seqserve.greedy_search import GreedySearch
from seqserve.search import make_search
from seqserve.sequence import Generation, Sequence
from seqserve.stop_sequences import StopSequences
from seqserve.worker import Worker


class Panic(BaseException):
    """What libraries in Rust raise when they panic; it is no Exception."""


class BrokenDecoder:
    """Raises at a target of some length."""

    def __init__(self, error: BaseException, length: int) -> None:
        self._error = error
        self._length = length

    def decode(self, token_ids: list[int]) -> str:
        """A letter for each token, as long as it works."""
        if len(token_ids) >= self._length:
            raise self._error
        return "x" * len(token_ids)

    def ends_in_bytes(self, token_ids: list[int]) -> bool:
        """Never."""
        return False


def make_broken(error: BaseException, **options: Any) -> tuple[Sequence, asyncio.Future[Any]]:
    """A submission whose target cannot be decoded from the third token on."""
    sequence, future = make_submission()
    sequence.search = make_search(
        GenerateOptions(max_new_tokens=6, stop_sequences=("stop",), **options),
        decoder_start_token_id=START,
        eos_token_id=EOS,
        stops=StopSequences(BrokenDecoder(error, 3), ("stop",), is_included=False),
    )
    return sequence, future


def start(engine: FakeEngine, dead: asyncio.Event | None = None, **settings: Any) -> Worker:
    """A running worker of at most 8 rows."""
    worker = make_worker(engine, **settings)
    worker.start(asyncio.get_running_loop(), None if dead is None else dead.set)
    return worker


@pytest.mark.parametrize("error", [RuntimeError("secret path"), Panic("secret path")], ids=repr)
@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 3}],
    ids=["greedy", "beams", "sampled"],
)
async def test_decoder_that_raises_fails_its_sequence_alone(
    error: BaseException, options: dict[str, Any]
) -> None:
    """The error names no detail, the log has all, and rows and worker are there for the others."""
    engine = FakeEngine()
    engine.gate.clear()
    worker = start(engine)
    broken, broken_future = make_broken(error, **options)
    before, before_future = make_submission(max_new_tokens=6)
    behind, behind_future = make_submission(max_new_tokens=6, num_beams=2)
    with structlog.testing.capture_logs() as logs:
        worker.submit([before, broken, behind])
        engine.gate.set()
        failed, *answers = await outcomes([broken_future, before_future, behind_future])
        later, later_future = make_submission(max_new_tokens=2, num_beams=8)
        worker.submit([later])
        (after,) = await outcomes([later_future])
        worker.close()
        await asyncio.wait_for(worker.join(), PATIENCE_SECONDS)
    assert repr(failed) == f"EngineError('{type(error).__name__} while a target grew')"
    assert isinstance(failed, EngineError)
    assert [type(answer) for answer in (*answers, after)] == [Generation] * 3
    assert answers[0].hypotheses[0].tokens == (10, 11, 12, 13, 14, 15)
    assert [(entry["event"], entry["exc_info"]) for entry in logs] == [("sequence failed", error)]


class BrokenSearch(GreedySearch):
    """Raises in one of its methods; in what tells of its tokens only once it has ended."""

    error: BaseException
    broken: str

    def __getattribute__(self, name: str) -> Any:
        """Raises instead of giving the broken method."""
        is_due = name in ("advance", "stop")
        if name in ("decided_tokens", "hypotheses"):
            is_due = super().is_finished
        if is_due and name == self.broken:
            raise self.error
        return super().__getattribute__(name)


@pytest.mark.parametrize("error", [IndexError("secret path"), Panic("secret path")], ids=repr)
@pytest.mark.parametrize(
    ("method", "stop_at", "occasion"),
    [
        ("advance", math.inf, "grew"),
        ("decided_tokens", math.inf, "grew"),
        ("hypotheses", math.inf, "grew"),
        ("stop", 3.0, "was ended"),
        ("decided_tokens", 3.0, "was ended"),
        ("hypotheses", 3.0, "was ended"),
    ],
)
async def test_search_that_raises_fails_its_sequence_alone(
    error: BaseException, method: str, stop_at: float, occasion: str
) -> None:
    """Whether its target grows or its time is up; the fault is in the log, once."""
    engine, clock = FakeEngine(), FakeClock()

    def take_time(batch: Batch) -> list[Outcome]:
        clock.advance(1.0)
        return run_plainly(batch)

    engine.script = take_time
    engine.gate.clear()
    worker = start(engine, clock=clock)
    broken, broken_future = make_submission(
        max_new_tokens=5, stop_at=stop_at, on_tokens=lambda _: None
    )
    assert broken.search is not None
    search = BrokenSearch(broken.search.options, START, EOS)
    search.error, search.broken = error, method
    broken.search = search
    other, other_future = make_submission(max_new_tokens=6)
    with structlog.testing.capture_logs() as logs:
        worker.submit([broken, other])
        engine.gate.set()
        failed, answer = await outcomes([broken_future, other_future])
        assert repr(worker._scheduler) == "Scheduler(waiting=0, running=0, free_rows=8)"
        worker.close()
        await asyncio.wait_for(worker.join(), PATIENCE_SECONDS)
    assert repr(failed) == f"EngineError('{type(error).__name__} while a target {occasion}')"
    assert answer.hypotheses[0].tokens == (10, 11, 12, 13, 14, 15)
    assert [(entry["event"], entry["exc_info"]) for entry in logs] == [("sequence failed", error)]


async def test_panic_outside_of_a_sequence_is_a_death_that_all_hear_of() -> None:
    """What is no Exception ends the worker as one does: nobody waits for ever."""
    engine, dead = FakeEngine(), asyncio.Event()

    def panic(batch: Batch) -> list[Outcome]:
        raise Panic

    engine.script = panic
    worker = start(engine, dead)
    sequence, future = make_submission()
    with structlog.testing.capture_logs() as logs:
        worker.submit([sequence])
        (answer,) = await outcomes([future])
        await asyncio.wait_for(dead.wait(), PATIENCE_SECONDS)
        await asyncio.wait_for(worker.join(), PATIENCE_SECONDS)
    assert isinstance(answer, UnavailableError)
    assert [entry["event"] for entry in logs] == ["worker died"]
