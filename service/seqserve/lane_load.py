"""What a lane has to do, as its gauges show it."""

import math
from collections.abc import Callable

from seqserve.cache_budget import CacheBudget
from seqserve.model_metrics import ModelMetrics
from seqserve.scheduler import Scheduler

_CACHE_SECONDS = 1.0
"""Between two looks at the cache of a lane that is busy: looking at every row takes a while."""


class LaneLoad:
    """The gauges of one lane."""

    def __init__(
        self,
        metrics: ModelMetrics,
        lane: int,
        budget: CacheBudget | None,
        clock: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._lane = lane
        self._budget = budget
        self._clock = clock
        self._cache_observed_at = -math.inf

    def observe(self, scheduler: Scheduler, num_arriving: int) -> None:
        """Shows what a scheduler has, and what is about to be its own. Worker thread only."""
        self._metrics.set_waiting_since(scheduler.oldest_at, lane=self._lane)
        self._metrics.set_load(
            num_waiting=scheduler.num_waiting + num_arriving,
            num_running=scheduler.num_running,
            num_live_rows=scheduler.num_live_rows,
            lane=self._lane,
        )
        now = self._clock()
        is_due = not scheduler.has_work or now - self._cache_observed_at >= _CACHE_SECONDS
        if self._budget is not None and is_due:
            self._cache_observed_at = now
            self._metrics.set_cache(
                reserved=self._budget.extent_bytes(scheduler.cache_extent),
                used=sum(map(self._budget.extent_bytes, scheduler.valid_extents())),
                lane=self._lane,
            )

    def observe_arrival(self, at: float) -> None:
        """Shows that a sequence waits to be taken, since a time; infinity: none does."""
        self._metrics.set_waiting_since(at, lane=self._lane, is_taken=False)
