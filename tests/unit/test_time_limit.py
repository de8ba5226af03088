"""Time limits: what is refused early, and what ends with what it has."""

import math
from typing import Any

import pytest

from fakes import EOS, FakePromise, make_sequence
from seqserve.errors import DeadlineError
from seqserve.generate_options import GenerateOptions
from seqserve.intake import SchedulerLimits
from seqserve.pace import Estimate
from seqserve.scheduler import Scheduler
from seqserve.search import make_search
from seqserve.search_state import Candidate, FinishReason
from seqserve.sequence import Generation
from seqserve.target_scoring import TargetScoring
from seqserve.time_limit import least_work

ESTIMATE = Estimate(token_seconds=0.5, step_seconds=1.0)


def make_scheduler() -> Scheduler:
    """A scheduler of an encoder-decoder model."""
    return Scheduler("encode", SchedulerLimits(max_batch_size=4, max_batch_tokens=1024))


def test_hopeless_deadline_is_answered_at_once() -> None:
    """What cannot be in time, by the fastest steps lately, is not waited for; the rest is."""
    scheduler = make_scheduler()
    hopeless = make_sequence(range(4), max_new_tokens=9, min_new_tokens=2, deadline=4.9)
    feasible = make_sequence(range(4), max_new_tokens=9, min_new_tokens=2, deadline=5.0)
    scheduler.add(hopeless)
    scheduler.add(feasible)
    (event,) = scheduler.drop(0.0, ESTIMATE)
    assert event.sequence is hopeless
    assert isinstance(event.answer, DeadlineError)
    assert str(event.answer) == (
        "the deadline cannot be met: the work takes 5.000 seconds at least, and 4.900 are left; "
        "allow more time, or ask for less"
    )
    assert scheduler.num_waiting == 1


@pytest.mark.parametrize(
    ("server_limit", "message"),
    [
        (None, "the deadline passed before the work was done; allow more time, or ask for less"),
        (
            60.0,
            "the server's limit of 60 seconds (max_request_seconds) passed before the work was "
            "done; ask for less, or generate with `max_time` below it",
        ),
    ],
)
def test_overdue_sequence_is_told_whose_limit_it_was(
    server_limit: float | None, message: str
) -> None:
    """The caller can move its own deadline, not the server's limit; early, too."""
    scheduler = make_scheduler()
    sequence = make_sequence(range(4), deadline=2.0)
    sequence.server_limit_seconds = server_limit
    scheduler.add(sequence)
    (event,) = scheduler.drop(2.0)
    assert isinstance(event.answer, DeadlineError)
    assert str(event.answer) == message
    scheduler.add(sequence)
    (event,) = scheduler.drop(0.0, ESTIMATE)
    assert str(event.answer).startswith("the deadline cannot be met")
    assert str(event.answer).endswith(message.partition(";")[2])


def test_without_measurements_everything_is_tried() -> None:
    """A model that has run nothing yet refuses nothing early."""
    scheduler = make_scheduler()
    scheduler.add(make_sequence(range(400), deadline=0.001))
    assert scheduler.drop(0.0) == []


@pytest.mark.parametrize("kind", ["running", "abandoned", "takes what there is"])
def test_not_everyone_is_refused_early(kind: str) -> None:
    """Running ones go on, abandoned ones hear nothing, and ``max_time`` comes before."""
    scheduler = make_scheduler()
    sequence = make_sequence(range(4), deadline=2.0, stop_at=1.5 if "takes" in kind else math.inf)
    scheduler.add(sequence)
    if kind == "running":
        batch = scheduler.next_batch(0.0)
        assert batch is not None
        scheduler.update(batch, [None], 0.0)
    assert isinstance(sequence.future, FakePromise)
    sequence.future.is_done = kind == "abandoned"
    assert scheduler.drop(0.0, ESTIMATE) == []


@pytest.mark.parametrize(
    ("options", "num_steps"),
    [
        ({"max_new_tokens": 9}, 1),
        ({"max_new_tokens": 9, "min_new_tokens": 5}, 6),
        ({"max_new_tokens": 5, "min_new_tokens": 5}, 5),
    ],
)
def test_least_steps_are_those_before_the_end_token(options: Any, num_steps: int) -> None:
    """The end token may come once there are ``min_new_tokens``, or the limit ends it."""
    assert least_work(make_sequence(range(7), **options)) == (7, num_steps)
    assert least_work(make_sequence(range(7), is_embedded=True)) == (7, 0)


def test_given_targets_are_fed_to_their_end() -> None:
    """Scoring has as many steps as its longest target, so a hopeless one is refused at once."""
    sequence = make_sequence(range(4), deadline=41.0)
    sequence.search = TargetScoring([(5,) * 40, (EOS,)], 1, EOS)
    assert least_work(sequence) == (4, 40)
    scheduler = make_scheduler()
    scheduler.add(sequence)
    (event,) = scheduler.drop(0.0, ESTIMATE)
    assert "the work takes 42.000 seconds at least" in str(event.answer)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_time_ends_a_running_sequence_with_what_it_has(is_streamed: bool) -> None:
    """The tokens so far are the answer, and their row is free."""
    scheduler = make_scheduler()
    on_tokens = print if is_streamed else None
    scheduler.add(make_sequence(max_new_tokens=9, stop_at=5.0, deadline=6.0, on_tokens=on_tokens))
    for now in (1.0, 2.0, 3.0):
        batch = scheduler.next_batch(now)
        assert batch is not None
        token = [Candidate(0, 10, 0.0, 0.0)]
        scheduler.update(batch, [None if batch.phase == "encode" else token], now)
    assert scheduler.drop(4.9) == []
    (event,) = scheduler.drop(5.0)
    assert isinstance(event.answer, Generation)
    (hypothesis,) = event.answer.hypotheses
    assert hypothesis.tokens == (10, 10)
    assert hypothesis.finish_reason is FinishReason.TIME
    assert event.tokens == []  # streamed already
    assert event.answer.timing.decode_seconds == 4.0
    assert repr(scheduler) == "Scheduler(waiting=0, running=0, free_rows=4)"


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -2.0])
def test_time_ends_a_waiting_sequence_with_nothing(num_beams: int, length_penalty: float) -> None:
    """One whose turn never came has one hypothesis, without tokens; all its time was queueing."""
    scheduler = make_scheduler()
    options: dict[str, Any] = {
        "num_beams": num_beams,
        "return_scores": True,
        "length_penalty": length_penalty,
    }
    scheduler.add(make_sequence(stop_at=2.0, num_return_sequences=num_beams, **options))
    (event,) = scheduler.drop(2.5)
    assert isinstance(event.answer, Generation)
    (hypothesis,) = event.answer.hypotheses
    assert (hypothesis.tokens, hypothesis.score) == ((), 0.0)
    assert hypothesis.finish_reason is FinishReason.TIME
    assert event.answer.timing.queue_seconds == 2.5
    assert event.answer.timing.decode_seconds == 0.0


def test_time_ends_beams_with_the_best_of_live_and_finished() -> None:
    """Live and finished hypotheses compete by their scores per length."""
    search = make_search(
        GenerateOptions(max_new_tokens=9, num_beams=2, num_return_sequences=2),
        decoder_start_token_id=1,
        eos_token_id=EOS,
    )
    search.advance([Candidate(0, EOS, -3.0, -3.0), *(Candidate(0, t, -1.0, -1.0) for t in (5, 6))])
    search.advance([Candidate(1, 7, -1.5, -0.5), Candidate(0, 8, -8.0, -7.0)])
    search.stop(FinishReason.TIME)
    assert search.is_finished
    found = [(item.tokens, item.score, item.finish_reason) for item in search.hypotheses()]
    assert found == [
        ((6, 7), -0.75, FinishReason.TIME),
        ((EOS,), -3.0, FinishReason.EOS),
    ]
    assert search.decided_tokens() == [6, 7]
