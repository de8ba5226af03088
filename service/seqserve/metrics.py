"""All Prometheus metrics of a server.

Names are ``seqserve_<what>_<unit>[_total]`` in seconds, tokens or bytes. Every metric of the engine
carries the model's name and version. No label takes a value that a caller may choose: a call for a
model that does not exist has empty ones, and methods that do not exist are not counted.
METRICS.md is made of what stands here; :mod:`seqserve.model_metrics` records what concerns a model.
"""

import platform
from collections.abc import Sequence

import onnxruntime
import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

import seqserve

_MODEL = ("model_name", "model_version")
_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
"""From half a millisecond, a small encoder's pass, to minutes, a long text in a long queue."""
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server, in a registry of its own so that tests can run several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # When a series was created is of no use to Prometheus, and would double the page.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        # Process metrics (CPU, memory, file descriptors) belong on the same page.
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        self.build = Info("seqserve_build", "What is running.", registry=self.registry)
        self.build.info(
            {
                "version": seqserve.__version__,
                "onnxruntime": onnxruntime.__version__,
                "python": platform.python_version(),
            }
        )
        self._define_calls()
        self._define_load()
        self._define_steps()
        self._define_sequences()
        self._define_sharing()

    def _define_calls(self) -> None:
        self.requests = self._counter(
            "requests_total",
            "RPCs answered, by status code and by the reason of what was not OK.",
            ("method", *_MODEL, "code", "reason"),
        )
        self.request_duration = self._histogram(
            "request_duration_seconds",
            "From the arrival of an RPC's message to its answer, in seconds.",
            ("method", *_MODEL),
        )
        self.requests_in_flight = self._gauge(
            "requests_in_flight", "RPCs being handled.", ("method",)
        )
        self.rejected = self._counter(
            "rejected_total", "Requests refused at admission, by reason.", (*_MODEL, "reason")
        )
        self.event_loop_lag = self._histogram(
            "event_loop_lag_seconds",
            "How long the event loop took to answer the watchdog, in seconds.",
        )
        self.event_loop_blocks = self._counter(
            "event_loop_blocks_total",
            "How often the event loop did not answer for watchdog_seconds.",
        )

    def _define_load(self) -> None:
        self.model_load = self._gauge(
            "model_load_seconds", "What checking and opening the model took, in seconds.", _MODEL
        )
        self.waiting = self._gauge("waiting_sequences", "Sequences not started.", _MODEL)
        self.waiting_explanations = self._gauge(
            "waiting_explanations",
            "Passes of the explain graph that have not begun, for Attend and for alignments.",
            _MODEL,
        )
        self.queue_age = self._gauge(
            "queue_age_seconds",
            "How long the oldest sequence that is not started has waited, in seconds.",
            _MODEL,
        )
        self.running = self._gauge("running_sequences", "Sequences being decoded.", _MODEL)
        self.live_rows = self._gauge(
            "live_rows", "Cache rows in use: one per live hypothesis.", _MODEL
        )
        self.max_rows = self._gauge(
            "max_rows", "Cache rows there may be, in all lanes of the model.", _MODEL
        )
        self.cache_budget = self._gauge(
            "cache_budget_bytes", "What the key-value cache may take, in bytes.", _MODEL
        )
        self.cache_reserved = self._gauge(
            "cache_reserved_bytes",
            "Key-value arrays in bytes; pages that were never written take no memory.",
            _MODEL,
        )
        self.cache_used = self._gauge(
            "cache_used_bytes",
            "The part of the key-value arrays that running sequences have filled, in bytes.",
            _MODEL,
        )

    def _define_steps(self) -> None:
        self.step_duration = self._histogram(
            "step_duration_seconds",
            "One forward pass with its token selection, in seconds.",
            (*_MODEL, "phase"),
        )
        self.stall_duration = self._histogram(
            "decode_stall_seconds",
            "Between two decode steps while sequences run, in seconds: encoder passes, and what "
            "lies around.",
            _MODEL,
        )
        self.step_rows = self._histogram(
            "step_rows",
            "Rows of a forward pass: the size of its batch.",
            (*_MODEL, "phase"),
            buckets=_SIZES,
        )
        self.failed_steps = self._counter(
            "failed_steps_total", "Forward passes that raised an error.", (*_MODEL, "phase")
        )
        self.source_tokens = self._counter(
            "source_tokens_total", "Source tokens encoded, without padding.", _MODEL
        )
        self.padding_tokens = self._counter(
            "padding_tokens_total", "Padding computed next to source tokens.", _MODEL
        )

    def _define_sequences(self) -> None:
        self.tokenize_duration = self._histogram(
            "tokenize_duration_seconds",
            "Tokenizing the texts of a request, with the wait for a thread, in seconds.",
            _MODEL,
        )
        self.queue_duration = self._histogram(
            "queue_duration_seconds",
            "From acceptance of a sequence to its first computation, in seconds.",
            _MODEL,
        )
        self.encode_duration = self._histogram(
            "encode_duration_seconds", "The encoder pass a sequence was in, in seconds.", _MODEL
        )
        self.decode_duration = self._histogram(
            "decode_duration_seconds",
            "From the end of a sequence's encoder pass to its last token, in seconds.",
            _MODEL,
        )
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds",
            "From the arrival of an RPC's message to the first token generated for an input of it, "
            "in seconds; of a stream, to the first that could be sent.",
            _MODEL,
        )
        self.inter_token = self._histogram(
            "inter_token_seconds",
            "Between two pieces of a stream, by the tokens of the second, in seconds.",
            _MODEL,
        )
        self.target_tokens = self._counter(
            "target_tokens_total", "Tokens of returned hypotheses.", _MODEL
        )
        self.dropped = self._counter(
            "dropped_sequences_total",
            "Sequences given up, by reason (cancelled: nobody waited any more; expired: the "
            "deadline passed; hopeless: it could not be met) and by whether they were waiting or "
            "running.",
            (*_MODEL, "reason", "state"),
        )
        self.model_loads = self._counter(
            "model_loads_total",
            "Versions that were to be loaded while the server ran, by result.",
            ("result",),
        )
        self.model_load_duration = self._histogram(
            "model_load_duration_seconds",
            "From the begin of a load to the switch, pre-flight included, in seconds.",
        )

    def _define_sharing(self) -> None:
        self.response_cache_hits = self._counter(
            "response_cache_hits_total", "Inputs answered with what was kept.", _MODEL
        )
        self.response_cache_misses = self._counter(
            "response_cache_misses_total", "Inputs looked up in vain.", _MODEL
        )
        self.response_cache_evictions = self._counter(
            "response_cache_evictions_total", "Answers pushed out by newer ones."
        )
        self.response_cache_bytes = self._gauge(
            "response_cache_bytes", "What the answers that are kept take, in bytes."
        )
        self.response_cache_entries = self._gauge(
            "response_cache_entries", "Answers that are kept."
        )
        self.deduplicated = self._counter(
            "deduplicated_total",
            "Inputs answered with what was computed for another one at the same time.",
            _MODEL,
        )

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"seqserve_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"seqserve_{name}", text, labels, registry=self.registry)

    def _histogram(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = _SECONDS,
    ) -> Histogram:
        return Histogram(f"seqserve_{name}", text, labels, buckets=buckets, registry=self.registry)
