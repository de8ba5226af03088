"""Lanes: who gets what, what counts as load, and gauges that have the sums."""

import asyncio
from typing import Any

import pytest

from fakes import FakeEngine, make_submission
from seqserve.errors import UnavailableError
from seqserve.intake import SchedulerLimits
from seqserve.lanes import Lanes, estimate_work
from seqserve.metrics import Metrics
from seqserve.model_metrics import ModelMetrics
from seqserve.sequence import Generation, Priority, Sequence
from seqserve.worker import Worker

PATIENCE_SECONDS = 20.0
LABELS = {"model_name": "fake", "model_version": "1"}


def make_lanes(num_lanes: int, metrics: Metrics | None = None) -> tuple[Lanes, list[FakeEngine]]:
    """Lanes of 8 rows each, not started, whose engines wait at their gates."""
    model_metrics = ModelMetrics(metrics or Metrics(), "fake", "1")
    engines = [FakeEngine() for _ in range(num_lanes)]
    for engine in engines:
        engine.gate.clear()
    workers = [
        Worker(engine, SchedulerLimits(8, 64), model_metrics, name="fake/1", lane=lane)
        for lane, engine in enumerate(engines)
    ]
    return Lanes(workers), engines


def taken(lanes: Lanes) -> list[list[int]]:
    """Source lengths of what each lane was handed, in order; takes them away."""
    shares = []
    for worker in lanes.workers:
        share = []
        while not worker._inbox.empty():
            sequence = worker._inbox.get()
            assert sequence is not None
            share.append(sequence.source_length)
        shares.append(share)
    return shares


def submissions(*lengths: int, **options: Any) -> tuple[list[Sequence], list[asyncio.Future[Any]]]:
    """A sequence of each source length."""
    pairs = [make_submission(source=range(length), **options) for length in lengths]
    return [sequence for sequence, _ in pairs], [future for _, future in pairs]


def loads(lanes: Lanes) -> list[int]:
    """Work that each lane has outstanding, of all classes."""
    return [sum(one.values()) for one in lanes._loads]


async def finish(lanes: Lanes, engines: list[FakeEngine]) -> None:
    """Opens the gates and waits until the lanes have ended."""
    for engine in engines:
        engine.gate.set()
    lanes.close()
    await asyncio.wait_for(lanes.join(), PATIENCE_SECONDS)
    await asyncio.sleep(0)  # what the workers handed over last


async def test_longest_begin_and_go_where_least_is_to_do() -> None:
    """Work is shared out, not sequences; of equal lanes the first takes the next one."""
    lanes, _ = make_lanes(2)
    sequences, _ = submissions(2, 30, 4, 9, 10, 8, max_new_tokens=1)
    lanes.submit(sequences)
    # With one new token each the work is the source and one more.
    assert taken(lanes) == [[30, 2], [10, 9, 8, 4]]
    assert loads(lanes) == [31 + 3, 11 + 10 + 9 + 5]


async def test_texts_to_embed_meet_those_of_their_length() -> None:
    """A lane gets its part of the work in one range of lengths, whatever the lanes have before."""
    lanes, _ = make_lanes(2)
    lanes.submit(submissions(2, 30, 4, 9, 10, 8, 7, is_embedded=True)[0])
    assert taken(lanes) == [[30, 4, 2], [10, 9, 8, 7]]
    assert loads(lanes) == [36, 34]
    lanes.submit(submissions(5, 20, 5, 4, is_embedded=True)[0])
    assert taken(lanes) == [[5, 5, 4], [20]]
    lanes.submit(submissions(6, is_embedded=True)[0])
    assert taken(lanes) == [[6], []]


async def test_next_call_counts_what_the_last_one_left() -> None:
    """Loads are those of all calls, and a lane that was lucky is next."""
    lanes, _ = make_lanes(3)
    for length in (20, 5, 6, 7, 1):
        lanes.submit(submissions(length, max_new_tokens=1)[0])
    assert taken(lanes) == [[20], [5, 7], [6, 1]]


async def test_urgent_work_goes_where_little_is_urgent() -> None:
    """It overtakes what is less so, and only waits for its like; of equals all work counts."""
    lanes, _ = make_lanes(3)
    for length, priority in (
        (50, Priority.LOW),  # the first lane
        (20, Priority.HIGH),  # the second
        (30, Priority.NORMAL),  # the third
        (10, Priority.HIGH),  # the third: of those without urgent work it has the least
        (5, Priority.HIGH),  # the first, where nothing is urgent
        (4, Priority.NORMAL),  # the first again: before it come 6 there, 21, and 42
        (3, Priority.LOW),  # the second, which has the least of all
    ):
        lanes.submit(submissions(length, max_new_tokens=1, priority=priority)[0])
    assert taken(lanes) == [[50, 5, 4], [20, 3], [30, 10]]


async def test_rows_and_prefixes_are_work() -> None:
    """Beams multiply targets; targets count no more than twice their sources; sources count."""
    (greedy, beams, short, prefixed), embedded = (
        [
            submissions(5, max_new_tokens=8)[0][0],
            submissions(5, max_new_tokens=8, num_beams=4)[0][0],
            submissions(2, max_new_tokens=100)[0][0],
            submissions(5, max_new_tokens=8, target_prefix=(7, 8, 9))[0][0],
        ],
        submissions(5, is_embedded=True)[0][0],
    )
    assert [estimate_work(one) for one in (greedy, beams, short, prefixed, embedded)] == [
        *(5 + 8, 5 + 4 * 8, 2 + 4, 5 + 8 + 3, 5)
    ]


async def test_load_is_zero_after_answers_and_cancellations() -> None:
    """Whoever is answered, fails or leaves, counts no longer; sequences may shrink meanwhile."""
    metrics = Metrics()
    lanes, engines = make_lanes(2, metrics)
    lanes.start(asyncio.get_running_loop())
    sequences, futures = submissions(3, 4, 5, 6, num_beams=2)
    too_wide, wide_future = make_submission(num_beams=9)
    drawn, drawn_future = make_submission(do_sample=True, num_return_sequences=3)
    lanes.submit([*sequences, too_wide, drawn])
    assert all(loads(lanes))
    futures[1].cancel()
    await asyncio.sleep(0)
    for engine in engines:
        engine.gate.set()
    answers = await asyncio.wait_for(
        asyncio.gather(*futures, wide_future, drawn_future, return_exceptions=True),
        PATIENCE_SECONDS,
    )
    kinds = [type(answer).__name__ for answer in answers]
    assert kinds == [
        "Generation",
        "CancelledError",
        *["Generation"] * 2,
        "EngineError",
        "Generation",
    ]
    await asyncio.sleep(0)
    assert loads(lanes) == [0, 0]
    await finish(lanes, engines)


async def test_closed_lanes_take_nothing_and_count_nothing() -> None:
    """The refusal reaches the caller; futures that nobody will answer count until they are dropped.

    Servicers cancel them as the call ends.
    """
    lanes, engines = make_lanes(2)
    lanes.start(asyncio.get_running_loop())
    await finish(lanes, engines)
    sequences, futures = submissions(3, 4)
    with pytest.raises(UnavailableError, match="being shut down"):
        lanes.submit(sequences)
    for future in futures:
        future.cancel()
    await asyncio.sleep(0)
    assert loads(lanes) == [0, 0]


async def test_all_lanes_answer_at_once() -> None:
    """Each lane runs its own batch; none waits for the gate of another."""
    lanes, engines = make_lanes(2)
    lanes.start(asyncio.get_running_loop())
    sequences, futures = submissions(6, 6)
    lanes.submit(sequences)
    engines[1].gate.set()
    answer = await asyncio.wait_for(futures[1], PATIENCE_SECONDS)
    assert isinstance(answer, Generation)
    assert not futures[0].done()
    await finish(lanes, engines)
    assert futures[0].done()


def test_gauges_are_sums_over_lanes() -> None:
    """A lane that reports again replaces what it said before, and nothing of the others."""
    metrics = Metrics()
    model_metrics = ModelMetrics(metrics, "fake", "1")

    def read(*names: str) -> list[float | None]:
        return [metrics.registry.get_sample_value(f"seqserve_{name}", LABELS) for name in names]

    model_metrics.set_load(num_waiting=3, num_running=2, num_live_rows=8, lane=0)
    model_metrics.set_load(num_waiting=1, num_running=5, num_live_rows=5, lane=1)
    model_metrics.set_cache(reserved=1000, used=400, lane=0)
    model_metrics.set_cache(reserved=500, used=20, lane=1)
    gauges = ("waiting_sequences", "running_sequences", "live_rows")
    assert read(*gauges) == [4, 7, 13]
    assert read("cache_reserved_bytes", "cache_used_bytes") == [1500, 420]
    model_metrics.set_load(num_waiting=0, num_running=0, num_live_rows=0, lane=0)
    model_metrics.set_cache(reserved=0, used=0, lane=0)
    assert read(*gauges) == [1, 5, 5]
    assert read("cache_reserved_bytes", "cache_used_bytes") == [500, 20]


async def test_dead_lane_is_left_out() -> None:
    """What a lost worker failed is no longer its load, and must not draw more to it."""
    lanes, _ = make_lanes(2)
    lanes.workers[0]._failure = RuntimeError("planted")
    sequences, _ = submissions(3, 4, 5)
    lanes.submit(sequences)
    assert taken(lanes) == [[], [5, 4, 3]]
    lanes.workers[1]._failure = RuntimeError("planted")
    with pytest.raises(UnavailableError, match="worker was lost"):
        lanes.submit(submissions(3)[0])
