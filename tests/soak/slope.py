"""How fast something grows: a line through samples that single peaks do not bend."""

import itertools
import statistics
from collections.abc import Sequence

_MAX_POINTS = 120
"""Of which all pairs are looked at; more samples are summed up by medians first."""

Sample = tuple[float, float]
"""A place (time, or calls made) and what was found there."""


def fit_slope(samples: Sequence[Sample], warm_up: float) -> float:
    """The median of the slopes between all pairs of samples.

    Source: Theil 1950; Sen 1968, doi:10.1080/01621459.1968.10480934.

    Args:
        samples: In the order of their places, at least 4 behind the warm-up.
        warm_up: The part of them that does not count, in [0, 1).
    """
    points = _thin(samples[int(warm_up * len(samples)) :])
    assert len(points) >= 4, "too few samples to tell"
    return statistics.median(
        (later - sooner) / (end - start)
        for (start, sooner), (end, later) in itertools.combinations(points, 2)
        if end > start
    )


def _thin(samples: Sequence[Sample]) -> list[Sample]:
    size = -(-len(samples) // _MAX_POINTS)
    groups = [samples[start : start + size] for start in range(0, len(samples), size)]
    return [
        (statistics.median(place for place, _ in group), statistics.median(v for _, v in group))
        for group in groups
    ]
