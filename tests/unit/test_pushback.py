"""When refused callers are told to come back: as fast as work is being done, in turns."""

import heapq
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeClock
from seqserve.admission import Admission, Places
from seqserve.errors import OverloadedError
from seqserve.pushback import Pushback

LIMIT = 50


def load(pushback: Pushback, seconds: float, num_per_second: int, *, since: float = 0.0) -> float:
    """Keeps every place taken and has so many a second come free; returns the time at the end."""
    pushback.observe(since, num_held=0)
    for step in range(1, round(seconds * num_per_second) + 1):
        pushback.observe(since + step / num_per_second, num_held=LIMIT, num_freed=1)
    return since + seconds


def refuse(pushback: Pushback, now: float, num_wanted: int = 1) -> float:
    """The time that a caller is given who finds no place free."""
    return pushback.refuse(now, num_wanted=num_wanted, num_held=LIMIT, limit=LIMIT)


def test_nothing_known_is_a_second() -> None:
    """Before anything has come free there is no rate."""
    pushback = Pushback()
    pushback.observe(0.0, num_held=0)
    pushback.observe(3.0, num_held=LIMIT)
    assert (pushback.drain_rate, refuse(pushback, 3.0)) == (0.0, 1.0)


@pytest.mark.parametrize("rate", [2, 20, 200])
def test_time_is_what_is_lacking_by_the_measured_rate(rate: int) -> None:
    """A model that is ten times as fast sends callers away for a tenth of the time."""
    pushback = Pushback()
    now = load(pushback, 10.0, rate)
    assert pushback.drain_rate == pytest.approx(rate, rel=0.1)
    assert refuse(pushback, now, 20) == pytest.approx(20 / rate, rel=0.1)


def test_rest_is_not_measured() -> None:
    """An hour without a request says nothing of how fast requests are answered."""
    pushback = Pushback()
    now = load(pushback, 10.0, 20)
    pushback.observe(now + 3600, num_held=0)
    assert pushback.drain_rate == pytest.approx(20, rel=0.1)


def test_slower_work_is_noticed() -> None:
    """Within seconds of load the new rate is what counts."""
    pushback = Pushback()
    now = load(pushback, 10.0, 100)
    for step in range(1, 101):
        pushback.observe(now + step / 5, num_held=LIMIT, num_freed=1)
    assert pushback.drain_rate == pytest.approx(5, rel=0.5)


def test_refused_together_come_back_one_after_the_other() -> None:
    """At the rate at which places come free, until all that is held has been done."""
    pushback = Pushback()
    now = load(pushback, 10.0, 20)
    times = [refuse(pushback, now) for _ in range(100)]
    rate = pushback.drain_rate
    assert times[:LIMIT] == pytest.approx([place / rate for place in range(1, LIMIT + 1)])
    assert times[LIMIT:] == pytest.approx([LIMIT / rate] * LIMIT)


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 100), st.integers(0, LIMIT), st.integers(0, LIMIT)), max_size=30
    ),
    wanted=st.lists(st.integers(1, LIMIT), min_size=1, max_size=20),
)
def test_times_are_never_out_of_bounds(
    steps: list[tuple[float, int, int]], wanted: list[int]
) -> None:
    """Nor shorter than what is lacking takes, nor longer than all that is held does."""
    pushback, now = Pushback(), 0.0
    for seconds, num_held, num_freed in steps:
        now += seconds
        pushback.observe(now, num_held=num_held, num_freed=min(num_freed, num_held))
    rate = pushback.drain_rate
    for num_wanted in wanted:
        found = refuse(pushback, now, num_wanted)
        assert 0.01 <= found <= 60
        if rate:
            # What a clock adds up is not exact.
            assert found >= min(num_wanted / rate, 60) * (1 - 1e-6) - 1e-6
            assert found <= max(LIMIT / rate, 0.01) * (1 + 1e-6) + 1e-6


def simulate(choose_delay: Callable[[float], float]) -> tuple[float, int]:
    """Many callers come at once to a model that does 100 inputs a second, and come back when told.

    Args:
        choose_delay: When a caller comes back who was told to after so many seconds.

    Returns:
        When the last was served, and how often callers were sent away.
    """
    clock = FakeClock()
    admission = Admission(LIMIT, clock=clock)
    events: list[tuple[float, int, Places | None]] = [(0.0, caller, None) for caller in range(500)]
    num_refused, free_at = 0, 0.0
    while events:
        clock.now, caller, places = heapq.heappop(events)
        if places is not None:
            places.release()
            continue
        try:
            taken = admission.admit(1)
        except OverloadedError as error:
            num_refused += 1
            back_at = clock.now + choose_delay(error.retry_after_seconds)
            heapq.heappush(events, (back_at, caller, None))
            continue
        free_at = max(free_at, clock.now) + 0.01
        heapq.heappush(events, (free_at, 500 + caller, taken))
    return clock.now, num_refused


def test_callers_who_come_back_when_told_keep_the_model_at_work() -> None:
    """While nothing is known it rests half a second; then 450 callers are done in 4.5 seconds.

    Told the same second all of the time, they would let it rest half of the time.
    """
    seconds, num_refused = simulate(lambda seconds: seconds)
    idle_seconds, _ = simulate(lambda _: 1.0)
    assert seconds == pytest.approx(5.5, abs=0.2)
    assert idle_seconds > 9
    assert num_refused < 500 * 10
