"""Plays scripts on the workers of a real model, and compares each answer with that of a run alone.

In steps everything happens on the event loop: in a tick, arrivals and cancellations come first,
then every worker runs one step, on a clock that counts ticks. So a script always takes the same
course. In threads the workers run as they are served.
"""

import asyncio
import functools
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from batch_scripts import MAX_ROWS, MAX_SOURCE_LENGTH, MAX_TARGET_LENGTH, Arrival, Request, Script
from fakes import FakeClock
from seqserve.cache_budget import CacheExtent
from seqserve.config import ServerConfig
from seqserve.engine import GenerationEngine
from seqserve.errors import DeadlineError
from seqserve.generation_graphs import GenerationGraphs, open_generation_graphs
from seqserve.intake import SchedulerLimits
from seqserve.manifest import read_manifest
from seqserve.metrics import Metrics
from seqserve.model_metrics import ModelMetrics
from seqserve.model_opening import open_model
from seqserve.response_cache import ResponseCache
from seqserve.search import make_search
from seqserve.sequence import Answer, Generation, Sequence
from seqserve.served_model import ServedModel
from seqserve.servicers.stopping import make_stops
from seqserve.sharing import Sharing
from seqserve.target_scoring import TargetScoring
from seqserve.tokenizer import Tokenizer
from seqserve.worker import Worker
from tiny_checkpoint import EOS_TOKEN_ID, START_TOKEN_ID

_PATIENCE_SECONDS = 30.0
_MAX_TICKS = 2000
"""Far beyond what any script takes."""


class Played:
    """An arrival of a script, and what became of it."""

    def __init__(self, arrival: Arrival, tokenizer: Tokenizer) -> None:
        self.arrival = arrival
        self.streamed: list[int] = []
        self.num_tokens = 0
        """Target tokens of each live hypothesis before the last tick."""
        now = float(arrival.tick)
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.sequence = make_sequence(arrival.request, tokenizer, self.future)
        self.sequence.priority, self.sequence.caller = arrival.priority, arrival.caller
        self.sequence.submitted_at = now
        self.sequence.sharing = Sharing()
        if arrival.is_streamed:
            self.sequence.on_tokens = self.streamed.extend
        if arrival.deadline_after is not None:
            self.sequence.deadline = now + arrival.deadline_after
        if arrival.stopped_after is not None and arrival.request.options is not None:
            self.sequence.stop_at = now + arrival.stopped_after

    @property
    def is_stopped(self) -> bool:
        """Whether its time limit ended it."""
        sequence = self.sequence
        return sequence.finished_at >= sequence.stop_at and not sequence.is_cached

    def outcome(self) -> str:
        """The answer or the error, every bit of it; empty if there is nothing to compare."""
        if self.future.cancelled():
            return ""
        error = self.future.exception()
        if isinstance(error, DeadlineError) and self.sequence.deadline < math.inf:
            return ""
        return describe(self.future)


def make_sequence(
    request: Request, tokenizer: Tokenizer, future: asyncio.Future[Answer]
) -> Sequence:
    """The sequence of a request, as the servicers make it."""
    options = request.options
    return Sequence(
        source_tokens=request.source,
        future=future,
        search=(
            TargetScoring(request.targets, START_TOKEN_ID, EOS_TOKEN_ID)
            if options is None
            else make_search(
                options,
                decoder_start_token_id=START_TOKEN_ID,
                eos_token_id=EOS_TOKEN_ID,
                stops=make_stops(options, tokenizer),
            )
        ),
        submitted_at=0.0,
    )


def describe(future: asyncio.Future[Answer]) -> str:
    """Hypotheses or error as text; floats in it are exact."""
    error = future.exception()
    if error is not None:
        return repr(error)
    answer = future.result()
    assert isinstance(answer, Generation)
    return repr(answer.hypotheses)


Play = Callable[[ServedModel, Script], Coroutine[Any, Any, list[Played]]]


def differences(folder: Path, script: Script, play: Play, **settings: Any) -> list[str]:
    """What is wrong after a script was played: answers that differ from those of runs alone.

    Places of the script that are still held, computations that are still shared, and streams that
    differ from their answers, are wrong, too.

    Args:
        folder: The model.
        script: What happens.
        play: How it is played.
        settings: Of the server, beside those of the script.
    """
    cache_bytes = script.num_lanes * script.num_cache_rows * _row_bytes(folder)
    config = ServerConfig(
        threads=1,
        lanes=script.num_lanes,
        max_batch_size=script.max_batch_size,
        max_num_beams=MAX_ROWS,
        cache_bytes=cache_bytes,
        **settings,
    )
    metrics = Metrics()
    cache = ResponseCache(config.response_cache_bytes, metrics)
    model = open_model(
        folder, config, metrics, response_cache=cache if config.response_cache_bytes else None
    )
    problems = []
    for index, one in enumerate(asyncio.run(play(model, script))):
        outcome = one.outcome()
        if not outcome:
            continue
        alone = answer_alone(
            folder, one.arrival.request, one.num_tokens if one.is_stopped else None
        )
        if outcome != alone:
            problems.append(f"arrivals[{index}]: {outcome} instead of {alone}")
        if one.arrival.is_streamed and one.future.exception() is None:
            answer = one.future.result()
            assert isinstance(answer, Generation)
            # Scored targets are known to those who ask.
            expected = [] if one.arrival.request.targets else list(answer.hypotheses[0].tokens)
            if one.streamed != expected:
                problems.append(f"arrivals[{index}]: streamed {one.streamed}, not {expected}")
    if any(any(one.values()) for one in model.lanes._loads):
        problems.append(f"lanes count work that is done: {model.lanes._loads}")
    if model.shared_answers is not None and model.shared_answers._computations:
        problems.append("computations are shared that are done")
    return problems


async def play_in_steps(model: ServedModel, script: Script) -> list[Played]:
    """Plays a script tick by tick, without a thread."""
    clock, workers = FakeClock(), model.lanes.workers
    for worker in workers:
        _hold(worker, clock)
    played = [Played(arrival, model.target_tokenizer) for arrival in script.arrivals]
    for tick in range(_MAX_TICKS):
        clock.now = float(tick)
        arrived = [one for one in played if one.arrival.tick == tick]
        model.submit([one.sequence for one in arrived])
        for one in played:
            if _cancel_tick(one.arrival) == tick:
                one.future.cancel()
            if not one.future.done():
                assert one.sequence.search is not None
                one.num_tokens = one.sequence.search.target_length
        for worker in workers:
            _step(worker, rests=script.rests)
        await asyncio.sleep(0)  # where futures are answered
        if all(one.future.done() for one in played):
            break
    for _ in range(4):  # those leave who were answered together, and what nobody waits for ends
        await asyncio.sleep(0)
    for worker in workers:
        _step(worker, rests=True)
        assert not worker._scheduler.has_work
    await asyncio.sleep(0)
    return played


async def play_in_threads(model: ServedModel, script: Script) -> list[Played]:
    """Plays a script on running workers; a tick is a turn of the event loop."""
    played = [Played(arrival, model.target_tokenizer) for arrival in script.arrivals]
    model.lanes.start(asyncio.get_running_loop())
    last = max(max(one.arrival.tick, _cancel_tick(one.arrival)) for one in played)
    for tick in range(last + 1):
        model.submit([one.sequence for one in played if one.arrival.tick == tick])
        for one in played:
            if _cancel_tick(one.arrival) == tick:
                one.future.cancel()
        await asyncio.sleep(0)
    answers = asyncio.gather(*(one.future for one in played), return_exceptions=True)
    await asyncio.wait_for(answers, _PATIENCE_SECONDS)
    model.lanes.close()
    await asyncio.wait_for(model.lanes.join(), _PATIENCE_SECONDS)
    return played


@functools.cache
def answer_alone(folder: Path, request: Request, num_tokens: int | None) -> str:
    """The outcome of a request on an engine and a worker of its own.

    Args:
        folder: The model.
        request: What is wanted.
        num_tokens: Target tokens after which its time is up; None: it has all the time.
    """
    return asyncio.run(_run_alone(folder, request, num_tokens))


async def _run_alone(folder: Path, request: Request, num_tokens: int | None) -> str:
    graphs, tokenizer = _open(folder)
    engine = GenerationEngine(graphs, read_manifest(folder), max_rows=MAX_ROWS)
    worker = Worker(
        engine,
        SchedulerLimits(max_batch_size=MAX_ROWS, max_batch_tokens=1024),
        ModelMetrics(Metrics(), "alone", "1"),
        name="alone/1",
        budget=engine.budget(MAX_ROWS * _row_bytes(folder)),
    )
    _hold(worker, FakeClock())
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    sequence = make_sequence(request, tokenizer, future)
    assert sequence.search is not None
    worker.submit([sequence])
    for _ in range(_MAX_TICKS):
        if sequence.search.target_length == num_tokens:
            sequence.stop_at = 0.0
        _step(worker, rests=False)
        await asyncio.sleep(0)
        if future.done():
            break
    return describe(future)


@functools.cache
def _open(folder: Path) -> tuple[GenerationGraphs, Tokenizer]:
    """The graphs of a model, which have no state, and the tokenizer of its targets."""
    manifest = read_manifest(folder)
    assert manifest.generation is not None
    return (
        open_generation_graphs(folder, manifest, num_threads=1),
        Tokenizer(folder / manifest.generation.target_tokenizer),
    )


def _row_bytes(folder: Path) -> int:
    """What one row of the cache takes for the longest of all requests."""
    graphs, _ = _open(folder)
    engine = GenerationEngine(graphs, read_manifest(folder), max_rows=MAX_ROWS)
    return engine.budget(0).bytes_for(CacheExtent(1, MAX_TARGET_LENGTH, MAX_SOURCE_LENGTH))


def _hold(worker: Worker, clock: FakeClock) -> None:
    """Prepares a worker to be run by steps instead of a thread."""
    worker._delivery.loop, worker._clock = asyncio.get_running_loop(), clock


def _step(worker: Worker, *, rests: bool) -> None:
    """What the thread of a worker does between two waits."""
    if worker._scheduler.has_work or not worker._inbox.empty():
        assert worker._receive()
        worker._step()
    elif rests:
        worker._scheduler.rest()
        worker._engine.release()


def _cancel_tick(arrival: Arrival) -> int:
    return -1 if arrival.cancelled_after is None else arrival.tick + arrival.cancelled_after
