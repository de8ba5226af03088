"""How often something may be done."""

import pytest

from seqserve.rate_limit import RateLimit


def test_burst_goes_through_and_then_the_rate() -> None:
    """A full bucket is emptied at once; then one comes each 1 / rate seconds."""
    limit = RateLimit(per_second=2.0, burst=3)
    assert [limit.take(100.0) for _ in range(3)] == [0.0] * 3
    assert limit.take(100.0) == pytest.approx(0.5)
    assert limit.take(100.25) == pytest.approx(0.25)
    assert limit.take(100.5) == 0.0
    assert limit.take(100.5) == pytest.approx(0.5)


def test_refused_requests_cost_nothing() -> None:
    """Whoever asks too often is not held off for longer."""
    limit = RateLimit(per_second=1.0, burst=1)
    assert limit.take(10.0) == 0.0
    assert all(limit.take(10.0) == pytest.approx(1.0) for _ in range(50))
    assert limit.take(11.0) == 0.0


def test_bucket_holds_no_more_than_the_burst() -> None:
    """A long rest earns the burst, not more."""
    limit = RateLimit(per_second=5.0, burst=2)
    assert [limit.take(1e6) == 0.0 for _ in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("per_second", [0.01, 0.3, 7.0, 1e5])
def test_told_seconds_are_enough(per_second: float) -> None:
    """Whoever comes back when told is let in, whatever rounding does."""
    limit, now = RateLimit(per_second, burst=1), 12345.678
    for _ in range(200):
        seconds = limit.take(now)
        if seconds:
            now += seconds
            assert limit.take(now) == 0.0


def test_clock_that_stands_still_or_goes_back_does_no_harm() -> None:
    """Nothing is earned, and nothing lost."""
    limit = RateLimit(per_second=1.0, burst=2)
    assert limit.take(50.0) == 0.0
    assert limit.take(49.0) == 0.0
    assert limit.take(49.0) == pytest.approx(1.0)
    assert limit.take(51.0) == 0.0
