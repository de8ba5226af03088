"""The metrics of one model: what its workers and servicers record."""

import math
import time
from collections.abc import Callable

from prometheus_client import Histogram

from seqserve.batch import Batch
from seqserve.drop import Drop
from seqserve.metrics import Metrics
from seqserve.sequence import Timing


class ModelMetrics:
    """The metrics of one model."""

    def __init__(
        self,
        metrics: Metrics,
        model_name: str,
        model_version: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.labels = {"model_name": model_name, "model_version": model_version}
        self._metrics = metrics
        self._clock = clock
        self._loads: dict[int, tuple[int, int, int]] = {}
        self._caches: dict[int, tuple[int, int]] = {}
        self._waiting_since: dict[tuple[int, bool], float] = {}
        self._steps: dict[str, tuple[Histogram, Histogram]] = {}
        labels = self.labels
        self._waiting = metrics.waiting.labels(**labels)
        metrics.waiting_explanations.labels(**labels)
        self._running = metrics.running.labels(**labels)
        self._live_rows = metrics.live_rows.labels(**labels)
        self._cache_budget = metrics.cache_budget.labels(**labels)
        self._cache_reserved = metrics.cache_reserved.labels(**labels)
        self._cache_used = metrics.cache_used.labels(**labels)
        self._stall_duration = metrics.stall_duration.labels(**labels)
        self._tokenize_duration = metrics.tokenize_duration.labels(**labels)
        self._queue_duration = metrics.queue_duration.labels(**labels)
        self._encode_duration = metrics.encode_duration.labels(**labels)
        self._decode_duration = metrics.decode_duration.labels(**labels)
        self._time_to_first_token = metrics.time_to_first_token.labels(**labels)
        self._inter_token = metrics.inter_token.labels(**labels)
        self._source_tokens = metrics.source_tokens.labels(**labels)
        self._padding_tokens = metrics.padding_tokens.labels(**labels)
        self._target_tokens = metrics.target_tokens.labels(**labels)
        self._hits = metrics.response_cache_hits.labels(**labels)
        self._misses = metrics.response_cache_misses.labels(**labels)
        self._deduplicated = metrics.deduplicated.labels(**labels)
        # A worker that is stuck records nothing, but what waits for it grows older all the same.
        metrics.queue_age.labels(**labels).set_function(self._queue_age)

    def retire(self) -> None:
        """Takes the gauges of a model that is gone off the page; what was counted stays."""
        metrics = self._metrics
        for gauge in (
            metrics.model_load,
            metrics.waiting,
            metrics.waiting_explanations,
            metrics.queue_age,
            metrics.running,
            metrics.live_rows,
            metrics.max_rows,
            metrics.cache_budget,
            metrics.cache_reserved,
            metrics.cache_used,
        ):
            gauge.remove(*self.labels.values())

    def set_load(
        self, *, num_waiting: int, num_running: int, num_live_rows: int, lane: int = 0
    ) -> None:
        """Records how much is waiting and running in a lane; the gauges have the sums."""
        self._loads[lane] = (num_waiting, num_running, num_live_rows)
        waiting, running, live_rows = map(sum, zip(*list(self._loads.values()), strict=True))
        self._waiting.set(waiting)
        self._running.set(running)
        self._live_rows.set(live_rows)

    def set_waiting_since(self, time: float, *, lane: int = 0, is_taken: bool = True) -> None:
        """Records since when the oldest sequence of a lane waits.

        Args:
            time: When it was submitted; infinity if there is none.
            lane: Where it waits.
            is_taken: Whether the worker has taken it out of its inbox.
        """
        self._waiting_since[lane, is_taken] = time

    def watch_explanations(self, count: Callable[[], int]) -> None:
        """Has the page tell how many passes of the explain graph wait; 0 without one."""
        self._metrics.waiting_explanations.labels(**self.labels).set_function(count)

    def _queue_age(self) -> float:
        """How long the oldest sequence has waited; called when the page is read."""
        oldest = min(list(self._waiting_since.values()), default=math.inf)
        return max(0.0, self._clock() - oldest)

    def set_max_rows(self, num_rows: int) -> None:
        """Records how many rows there may be."""
        self._metrics.max_rows.labels(**self.labels).set(num_rows)

    def set_load_duration(self, seconds: float) -> None:
        """Records what opening the model took."""
        self._metrics.model_load.labels(**self.labels).set(seconds)

    def set_cache_budget(self, num_bytes: int) -> None:
        """Records what the cache may take."""
        self._cache_budget.set(num_bytes)

    def set_cache(self, *, reserved: int, used: int, lane: int = 0) -> None:
        """Records the bytes of the cache of a lane; the gauges have the sums."""
        self._caches[lane] = (reserved, used)
        all_reserved, all_used = map(sum, zip(*list(self._caches.values()), strict=True))
        self._cache_reserved.set(all_reserved)
        self._cache_used.set(all_used)

    def observe_stall(self, seconds: float) -> None:
        """Records how long running sequences stood still between two decode steps."""
        self._stall_duration.observe(seconds)

    def observe_step(self, batch: Batch, seconds: float) -> None:
        """Records a forward pass that succeeded."""
        if batch.phase not in self._steps:
            labels = {**self.labels, "phase": batch.phase}
            self._steps[batch.phase] = (
                self._metrics.step_duration.labels(**labels),
                self._metrics.step_rows.labels(**labels),
            )
        step_duration, step_rows = self._steps[batch.phase]
        step_duration.observe(seconds)
        step_rows.observe(batch.num_rows)
        if batch.phase != "decode":
            num_tokens = sum(sequence.source_length for sequence in batch.sequences)
            self._source_tokens.inc(num_tokens)
            self._padding_tokens.inc(batch.padded_tokens - num_tokens)

    def observe_failed_step(self, phase: str) -> None:
        """Records a forward pass that raised an error."""
        self._metrics.failed_steps.labels(**self.labels, phase=phase).inc()

    def observe_tokenizing(self, seconds: float) -> None:
        """Records the tokenizing of a request's texts."""
        self._tokenize_duration.observe(seconds)

    def observe_gap(self, seconds: float, num_tokens: int) -> None:
        """Records the time between two pieces of a stream, the second of so many tokens."""
        self._inter_token.observe(seconds / num_tokens)

    def observe_answer(self, timing: Timing, num_target_tokens: int) -> None:
        """Records an answered sequence; what was kept has taken no stage any time."""
        if not timing.is_cached:
            self._queue_duration.observe(timing.queue_seconds)
            self._encode_duration.observe(timing.encode_seconds)
            if timing.first_token_seconds is not None:
                self._decode_duration.observe(timing.decode_seconds)
        if num_target_tokens and timing.first_token_seconds is not None:
            self._time_to_first_token.observe(timing.first_token_seconds)
        self._target_tokens.inc(num_target_tokens)

    def observe_drop(self, drop: Drop) -> None:
        """Records a sequence that was given up."""
        state = "running" if drop.is_running else "waiting"
        labels = {**self.labels, "reason": drop.reason, "state": state}
        self._metrics.dropped.labels(**labels).inc()

    def observe_lookup(self, *, is_hit: bool) -> None:
        """Records whether an answer was kept."""
        (self._hits if is_hit else self._misses).inc()

    def observe_shared(self, num_sequences: int) -> None:
        """Records sequences answered with what was computed for another one."""
        self._deduplicated.inc(num_sequences)

    def observe_rejection(self, reason: str) -> None:
        """Records a request refused at admission."""
        self._metrics.rejected.labels(**self.labels, reason=reason).inc()
