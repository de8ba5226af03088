"""The engine of a device gives what that of the processor gives.

There is no device here: the processor stands in for it, so that the same graphs are bound, moved
and read in the same ways. What CUDA computes is not tested.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fakes import FakePromise, make_sequence
from seqserve import device_engine
from seqserve.batch import Batch, Outcome
from seqserve.cache_budget import CacheBudget
from seqserve.device_engine import DeviceEngine, round_up_rows
from seqserve.engine import GenerationEngine
from seqserve.errors import EngineError
from seqserve.generation_graphs import open_device_graphs, open_generation_graphs
from seqserve.intake import SchedulerLimits
from seqserve.manifest import read_manifest
from seqserve.scheduler import Scheduler
from seqserve.search import make_search
from seqserve.search_state import Candidate, Hypothesis
from seqserve.sequence import Generation, Sequence
from seqserve.target_scoring import TargetScoring
from seqserve_export.exporter import export_model
from tiny_checkpoint import EOS_TOKEN_ID, START_TOKEN_ID, make_tiny_checkpoint

MAX_ROWS = 12
AnyEngine = GenerationEngine | DeviceEngine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in fp16 that reads 80 and writes 70 tokens, more than caches begin with."""
    torch.set_num_threads(1)
    source = make_tiny_checkpoint(
        tmp_path_factory.mktemp("source") / "tiny", 8, max_source_length=80, max_target_length=70
    )
    store = tmp_path_factory.mktemp("store")
    return export_model(source, store, name="half", dtype="fp16").folder


def open_engine(folder: Path, *, is_device: bool) -> AnyEngine:
    """An engine of the model, on the processor or on what stands in for a device."""
    manifest = read_manifest(folder)
    graphs = open_generation_graphs(folder, manifest, num_threads=1)
    if not is_device:
        return GenerationEngine(graphs, manifest, max_rows=MAX_ROWS)
    device_graphs = open_device_graphs(folder, manifest, num_threads=1, device="cpu")
    return DeviceEngine(graphs, device_graphs, manifest, max_rows=MAX_ROWS, device_type="cpu")


@pytest.fixture(scope="module")
def engines(folder: Path) -> tuple[AnyEngine, AnyEngine]:
    """Both engines; each test gives their caches back."""
    return open_engine(folder, is_device=False), open_engine(folder, is_device=True)


@pytest.fixture(autouse=True)
def _release(engines: tuple[AnyEngine, AnyEngine]) -> Iterator[None]:
    yield
    for engine in engines:
        engine.release()


@dataclasses.dataclass
class Job:
    """One sequence of a script."""

    joins_at: int
    """Batch before which it is added."""
    sequence: Sequence
    leaves_at: int | None = None
    """Batch before which its caller goes."""


def make_job(joins_at: int, source: Any, *, leaves_at: int | None = None, **options: Any) -> Job:
    """A sequence of the tiny model's vocabulary."""
    sequence = make_sequence(source, **options)
    assert sequence.search is not None
    if not isinstance(sequence.search, TargetScoring):
        sequence.search = make_search(
            sequence.search.options,
            decoder_start_token_id=START_TOKEN_ID,
            eos_token_id=EOS_TOKEN_ID,
        )
    return Job(joins_at, sequence, leaves_at)


def run_script(
    engine: AnyEngine, jobs: list[Job], batches: list[Batch] | None = None
) -> list[list[Hypothesis] | None]:
    """What each job is answered, None to those whose caller has gone; batches are kept on wish."""
    budget = engine.budget(2**20)
    scheduler = Scheduler(
        "encode", SchedulerLimits(max_batch_size=MAX_ROWS, max_batch_tokens=1024), budget
    )
    answers: dict[Sequence, list[Hypothesis]] = {}
    index = 0
    while True:
        for job in jobs:
            if job.joins_at == index:
                scheduler.add(job.sequence)
            if job.leaves_at == index:
                promise = job.sequence.future
                assert isinstance(promise, FakePromise)
                promise.is_done = True
        events = scheduler.drop(0.0)
        batch = scheduler.next_batch(0.0)
        if batch is None and index > max(job.joins_at for job in jobs):
            break
        index += 1
        if batch is not None:
            if batches is not None:
                batches.append(batch)
            events += scheduler.update(batch, engine.run(batch), 0.0)
            scheduler.check()
        for event in events:
            assert isinstance(event.answer, Generation), event.answer
            answers[event.sequence] = event.answer.hypotheses
    return [answers.get(job.sequence) for job in jobs]


def random_jobs(
    seed: int, num_jobs: int, make_options: Callable[[int], dict[str, Any]]
) -> list[Job]:
    """Sequences that join at different times; every seventh is abandoned while it runs."""
    rng = np.random.default_rng(seed)
    jobs = []
    for number in range(num_jobs):
        source = [*rng.integers(4, 30, rng.integers(1, 70)).tolist(), EOS_TOKEN_ID]
        joins_at = int(rng.integers(0, 40))
        leaves_at = joins_at + 6 if number % 7 == 6 else None
        options = {"max_new_tokens": int(rng.integers(2, 60)), **make_options(number)}
        jobs.append(make_job(joins_at, source, leaves_at=leaves_at, **options))
    return jobs


def mixed_options(number: int) -> dict[str, Any]:
    """Options that need logits and such that do not, next to each other."""
    choices: list[dict[str, Any]] = [
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "temperature": 0.8, "top_k": 5, "seed": number},
        {"return_scores": True, "return_token_log_probabilities": True},
        {"no_repeat_ngram_size": 2, "min_new_tokens": 4},
        {"repetition_penalty": 1.3},
        {"target_prefix": (7, 9), "forced_bos_token_id": 11},
        {"num_beams": 2, "length_penalty": 0.5, "suppressed_tokens": (8,)},
        {"num_return_sequences": 3, "return_alternatives": True},
        {"top_log_probability_count": 2},
    ]
    return choices[number % len(choices)]


def with_rules(number: int) -> dict[str, Any]:
    """Greedy search, with rules that seldom bar the best token."""
    choices: list[dict[str, Any]] = [
        {"no_repeat_ngram_size": 3},
        {"suppressed_tokens": (8,), "forced_eos_token_id": EOS_TOKEN_ID},
        {"forced_bos_token_id": 10, "min_new_tokens": 2},
    ]
    return choices[number % len(choices)]


@pytest.mark.parametrize("make_options", [lambda _: {}, with_rules, mixed_options])
def test_tokens_and_scores_are_those_of_the_processor(
    engines: tuple[AnyEngine, AnyEngine], make_options: Callable[[int], dict[str, Any]]
) -> None:
    """While sequences join, leave and are abandoned, and caches are replaced under them."""
    batches: list[Batch] = []
    expected, actual = (
        run_script(engine, random_jobs(3, 30, make_options), batches) for engine in engines
    )
    assert actual == expected
    assert any(batch.resize and batch.resize.kept.num_rows for batch in batches)
    # Whole rows are copied here, and there what differs: of beams, little.
    is_any_shared = any(copy.first_position for batch in batches for copy in batch.copies)
    assert is_any_shared == (make_options is mixed_options)
    assert len({hypotheses[0].tokens for hypotheses in expected if hypotheses}) > 15
    assert None in expected


def test_given_targets_are_scored_alike(engines: tuple[AnyEngine, AnyEngine]) -> None:
    """Scores of targets that a request brings need the logits of every step."""
    answers = []
    for engine in engines:
        jobs = random_jobs(4, 4, lambda _: {})
        for job in jobs:
            targets = [(7, 8, 9, EOS_TOKEN_ID), (10, EOS_TOKEN_ID)]
            job.sequence.search = TargetScoring(targets, START_TOKEN_ID, EOS_TOKEN_ID)
        answers.append(run_script(engine, jobs))
    assert answers[0] == answers[1]


def test_logits_stay_where_they_are_in_greedy_search(
    engines: tuple[AnyEngine, AnyEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without scores or rules that bar the best token nothing but token ids is read."""

    def refuse(*_: object) -> list[Outcome]:
        raise AssertionError("logits were read")

    monkeypatch.setattr(device_engine, "choose", refuse)
    jobs = [make_job(0, [5, 6, EOS_TOKEN_ID], max_new_tokens=9, no_repeat_ngram_size=9)]
    (hypotheses,) = run_script(engines[1], jobs)
    assert hypotheses
    scored = [make_job(0, [5, 6, EOS_TOKEN_ID], return_scores=True)]
    with pytest.raises(AssertionError, match="logits were read"):
        run_script(engines[1], scored)


def test_logits_that_are_not_finite_fail_their_sequence_alone(folder: Path) -> None:
    """A cache with NaN in one row is told as by the processor; the neighbour goes on."""
    engine = open_engine(folder, is_device=True)
    assert isinstance(engine, DeviceEngine)
    jobs = [make_job(0, [5, 6, EOS_TOKEN_ID]), make_job(0, [7, 8, EOS_TOKEN_ID])]
    scheduler = Scheduler(
        "encode",
        SchedulerLimits(max_batch_size=MAX_ROWS, max_batch_tokens=1024),
        engine.budget(2**20),
    )
    for job in jobs:
        scheduler.add(job.sequence)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    scheduler.update(batch, engine.run(batch), 0.0)
    # The processor stands in for the device, so that its memory can be reached.
    for tensor in engine._cache.source:
        tensor.numpy()[0] = np.nan
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    fault, candidates = engine.run(batch)
    assert isinstance(fault, EngineError)
    assert str(fault) == "the model returned logits that are not finite"
    assert isinstance(candidates, list)


def test_steps_beyond_the_cache_are_refused(engines: tuple[AnyEngine, AnyEngine]) -> None:
    """A step that would write behind the end of the cache is an error, not a wrong answer."""
    engine = engines[1]
    job = make_job(0, [5, EOS_TOKEN_ID], max_new_tokens=3)
    scheduler = Scheduler(
        "encode",
        SchedulerLimits(max_batch_size=MAX_ROWS, max_batch_tokens=1024),
        engine.budget(2**20),
    )
    scheduler.add(job.sequence)
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    scheduler.update(batch, engine.run(batch), 0.0)
    search = make_job(0, [5], max_new_tokens=60, target_prefix=(7,) * 40).sequence.search
    assert search is not None
    for _ in range(40):
        search.advance([Candidate(0, 7, 0.0, 0.0)])
    job.sequence.search = search
    batch = scheduler.next_batch(0.0)
    assert batch is not None
    with pytest.raises(EngineError, match="41 target positions exceed the 32 granted"):
        engine.run(batch)


def test_released_engine_begins_anew(engines: tuple[AnyEngine, AnyEngine]) -> None:
    """A rest between two batches of work changes nothing."""
    answers = []
    for _ in range(2):
        answers.append(run_script(engines[1], random_jobs(5, 4, lambda _: {})))
        engines[1].release()
    assert answers[0] == answers[1]


def test_a_side_that_is_replaced_is_budgeted_as_a_whole(folder: Path) -> None:
    """Old and new tensors of a side exist next to each other: the budget counts both."""
    budgets: list[CacheBudget] = [
        open_engine(folder, is_device=is_device).budget(1000) for is_device in (False, True)
    ]
    assert budgets[0].target_position_bytes == budgets[1].target_position_bytes
    assert budgets[1].row_bytes(64, 32) == (64 + 32 + 64) * budgets[1].target_position_bytes
    assert budgets[0].row_bytes(64, 32) < budgets[1].row_bytes(64, 32)


def test_steps_have_few_sizes() -> None:
    """Rows are rounded up to powers of two, and to no more than there are."""
    sizes = [round_up_rows(num_rows, 12) for num_rows in range(1, 13)]
    assert sizes == [1, 2, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]
