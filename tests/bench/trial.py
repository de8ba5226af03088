"""What one trial of arrivals at a rate says about a server: pure."""

import statistics
from collections.abc import Sequence as Items
from typing import Any, NamedTuple

_GROWTH = 1.5
_SLACK = 8
"""Requests by which a queue may be longer without growing."""
_NUM_SAMPLES = 20


class Trial(NamedTuple):
    """Arrivals at one rate."""

    rate: float
    """Requests a second."""
    seconds: float
    warmup_seconds: float
    """The beginning, which is not counted."""
    limit_seconds: float
    """Of the 95th percentile of latencies."""


class Outcome(NamedTuple):
    """What became of one request; times in seconds of the trial."""

    arrived_at: float
    ended_at: float
    """When it was answered, refused, or given up."""
    num_tokens: int
    is_answered: bool


def summarize(trial: Trial, outcomes: Items[Outcome]) -> dict[str, Any]:
    """Latencies of the requests that arrived after the warm-up, and whether the rate held.

    It held if all of them were answered, 95 % within the limit, and the queue did not keep growing:
    a rate that is too high by little stays within the limit for as long as a trial lasts.
    """
    counted = [one for one in outcomes if one.arrived_at >= trial.warmup_seconds]
    # One given up counts with the time until then, which is beyond the limit.
    latencies = sorted(one.ended_at - one.arrived_at for one in counted)
    num_unanswered = sum(not one.is_answered for one in counted)
    window = trial.seconds - trial.warmup_seconds
    answered = [
        one
        for one in outcomes
        if one.is_answered and trial.warmup_seconds <= one.ended_at < trial.seconds
    ]
    lengths = [
        _mean_outstanding(outcomes, trial.warmup_seconds + part * window / 3, window / 3)
        for part in range(3)
    ]
    is_growing = lengths[2] > _GROWTH * lengths[0] + _SLACK
    percentiles = {f"p{share}": percentile(latencies, share / 100) for share in (50, 95, 99)}
    return {
        "rate": trial.rate,
        "num_requests": len(counted),
        "num_unanswered": num_unanswered,
        "requests_per_second": len(answered) / window,
        "target_tokens_per_second": sum(one.num_tokens for one in answered) / window,
        **{f"{name}_seconds": value for name, value in percentiles.items()},
        "mean_outstanding": lengths,
        "is_growing": is_growing,
        "is_sustained": bool(
            counted
            and not num_unanswered
            and not is_growing
            and percentiles["p95"] < trial.limit_seconds
        ),
    }


def percentile(values: Items[float], share: float) -> float:
    """The smallest of the sorted values that at least a share of them do not exceed; 0 of none."""
    if not values:
        return 0.0
    return values[max(0, -int(-share * len(values) // 1) - 1)]


def _mean_outstanding(outcomes: Items[Outcome], start: float, seconds: float) -> float:
    times = [start + (place + 0.5) * seconds / _NUM_SAMPLES for place in range(_NUM_SAMPLES)]
    return statistics.mean(
        sum(one.arrived_at <= time < one.ended_at for one in outcomes) for time in times
    )
