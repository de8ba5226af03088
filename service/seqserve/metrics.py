"""All Prometheus metrics, and the only place that records.

Names are ``seqserve_<what>_<unit>[_total]`` in seconds, tokens or bytes. Every metric of the engine
carries the model's name and version.
"""

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from seqserve.batch import Batch
from seqserve.sequence import Timing

_MODEL = ("model_name", "model_version")
_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server, in a registry of its own so that tests can run several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Process metrics (CPU, memory, file descriptors) belong on the same page.
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        registry = self.registry
        self.requests = Counter(
            "seqserve_requests_total",
            "RPCs answered, by status code.",
            ("method", "code"),
            registry=registry,
        )
        self.request_duration = Histogram(
            "seqserve_request_duration_seconds",
            "From the arrival of an RPC's message to its answer.",
            ("method",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "seqserve_requests_in_flight", "RPCs being handled.", ("method",), registry=registry
        )
        self.rejected = Counter(
            "seqserve_rejected_total",
            "Requests refused at admission, by reason.",
            (*_MODEL, "reason"),
            registry=registry,
        )
        self.waiting = Gauge(
            "seqserve_waiting_sequences", "Sequences not started.", _MODEL, registry=registry
        )
        self.running = Gauge(
            "seqserve_running_sequences",
            "Sequences being decoded.",
            _MODEL,
            registry=registry,
        )
        self.live_rows = Gauge(
            "seqserve_live_rows",
            "Cache rows in use: one per live hypothesis.",
            _MODEL,
            registry=registry,
        )
        self.cache_budget = Gauge(
            "seqserve_cache_budget_bytes",
            "What the key-value cache may take.",
            _MODEL,
            registry=registry,
        )
        self.cache_reserved = Gauge(
            "seqserve_cache_reserved_bytes",
            "Key-value arrays; pages that were never written take no memory.",
            _MODEL,
            registry=registry,
        )
        self.cache_used = Gauge(
            "seqserve_cache_used_bytes",
            "The part of the key-value arrays that running sequences have filled.",
            _MODEL,
            registry=registry,
        )
        self.queue_duration = Histogram(
            "seqserve_queue_duration_seconds",
            "From acceptance of a sequence to its first computation.",
            _MODEL,
            buckets=_SECONDS,
            registry=registry,
        )
        self.step_duration = Histogram(
            "seqserve_step_duration_seconds",
            "One forward pass with its token selection.",
            (*_MODEL, "phase"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stall_duration = Histogram(
            "seqserve_decode_stall_seconds",
            "Between two decode steps while sequences run: encoder passes, and what lies around.",
            _MODEL,
            buckets=_SECONDS,
            registry=registry,
        )
        self.step_rows = Histogram(
            "seqserve_step_rows",
            "Rows of a forward pass.",
            (*_MODEL, "phase"),
            buckets=_SIZES,
            registry=registry,
        )
        self.failed_steps = Counter(
            "seqserve_failed_steps_total",
            "Forward passes that raised an error.",
            (*_MODEL, "phase"),
            registry=registry,
        )
        self.source_tokens = Counter(
            "seqserve_source_tokens_total",
            "Source tokens encoded, without padding.",
            _MODEL,
            registry=registry,
        )
        self.padding_tokens = Counter(
            "seqserve_padding_tokens_total",
            "Padding computed next to source tokens.",
            _MODEL,
            registry=registry,
        )
        self.target_tokens = Counter(
            "seqserve_target_tokens_total",
            "Tokens of returned hypotheses.",
            _MODEL,
            registry=registry,
        )
        self.model_loads = Counter(
            "seqserve_model_loads_total",
            "Versions that were to be loaded while the server ran, by result.",
            ("result",),
            registry=registry,
        )
        self.model_load_duration = Histogram(
            "seqserve_model_load_seconds",
            "From the begin of a load to the switch, pre-flight included.",
            buckets=_SECONDS,
            registry=registry,
        )


class ModelMetrics:
    """The metrics of one model."""

    def __init__(self, metrics: Metrics, model_name: str, model_version: str) -> None:
        labels = {"model_name": model_name, "model_version": model_version}
        self._labels = labels
        self._metrics = metrics
        self._loads: dict[int, tuple[int, int, int]] = {}
        self._caches: dict[int, tuple[int, int]] = {}
        self._waiting = metrics.waiting.labels(**labels)
        self._running = metrics.running.labels(**labels)
        self._live_rows = metrics.live_rows.labels(**labels)
        self._cache_budget = metrics.cache_budget.labels(**labels)
        self._cache_reserved = metrics.cache_reserved.labels(**labels)
        self._cache_used = metrics.cache_used.labels(**labels)
        self._stall_duration = metrics.stall_duration.labels(**labels)
        self._queue_duration = metrics.queue_duration.labels(**labels)
        self._source_tokens = metrics.source_tokens.labels(**labels)
        self._padding_tokens = metrics.padding_tokens.labels(**labels)
        self._target_tokens = metrics.target_tokens.labels(**labels)

    def retire(self) -> None:
        """Takes the gauges of a model that is gone off the page; what was counted stays."""
        metrics = self._metrics
        for gauge in (
            metrics.waiting,
            metrics.running,
            metrics.live_rows,
            metrics.cache_budget,
            metrics.cache_reserved,
            metrics.cache_used,
        ):
            gauge.remove(*self._labels.values())

    def set_load(
        self, *, num_waiting: int, num_running: int, num_live_rows: int, lane: int = 0
    ) -> None:
        """Records how much is waiting and running in a lane; the gauges have the sums."""
        self._loads[lane] = (num_waiting, num_running, num_live_rows)
        waiting, running, live_rows = map(sum, zip(*list(self._loads.values()), strict=True))
        self._waiting.set(waiting)
        self._running.set(running)
        self._live_rows.set(live_rows)

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
        labels = {**self._labels, "phase": batch.phase}
        self._metrics.step_duration.labels(**labels).observe(seconds)
        self._metrics.step_rows.labels(**labels).observe(batch.num_rows)
        if batch.phase != "decode":
            num_tokens = sum(sequence.source_length for sequence in batch.sequences)
            self._source_tokens.inc(num_tokens)
            self._padding_tokens.inc(batch.padded_tokens - num_tokens)

    def observe_failed_step(self, phase: str) -> None:
        """Records a forward pass that raised an error."""
        self._metrics.failed_steps.labels(**self._labels, phase=phase).inc()

    def observe_answer(self, timing: Timing, num_target_tokens: int) -> None:
        """Records an answered sequence."""
        self._queue_duration.observe(timing.queue_seconds)
        self._target_tokens.inc(num_target_tokens)

    def observe_rejection(self, reason: str) -> None:
        """Records a request refused at admission."""
        self._metrics.rejected.labels(**self._labels, reason=reason).inc()
