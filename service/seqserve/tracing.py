"""Spans of calls for OpenTelemetry, sent over OTLP/gRPC. Imported only if somebody wants them.

Nothing is measured for a span: calls and sequences carry their times anyway, and spans are made of
those when they are over. Attributes are names, numbers and codes, never texts. The variables of the
SDK work, too: OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE.

Source: the semantic conventions of OpenTelemetry for RPC and gRPC, W3C Trace Context.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import structlog
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import seqserve
from seqserve.sequence import Generation, Sequence

_log = structlog.get_logger(__name__)
_MAX_SEQUENCES = 16
"""Of a call that have spans of their own; a call may have hundreds."""
_EXPORT_SECONDS = 5
"""Given to the collector for each batch of spans."""
_CLOSE_SECONDS = 3.0
"""Given to the collector for all that is left when the server stops; a kubelet does not wait."""
_CARRIERS = ("traceparent", "tracestate")
_SERVER_ERRORS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Codes with which the span of a server counts as failed."""


class OpenTelemetryTracer:
    """Makes spans and sends them in batches, from a thread of the SDK."""

    def __init__(self, endpoint: str, sample_ratio: float) -> None:
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            resource=Resource.create(
                {
                    "service.name": "seqserve",
                    "service.version": seqserve.__version__,
                    "service.instance.id": str(uuid.uuid4()),
                }
            ),
            shutdown_on_exit=False,
        )
        self._exporter = OTLPSpanExporter(endpoint, timeout=_EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("seqserve", seqserve.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(
        self,
        method: str,
        request_id: str,
        metadata: Iterable[tuple[str, str | bytes]],
        started_at: float,
    ) -> "CallTrace | None":
        """Begins the span of a call, as part of the caller's trace if it has one."""
        carrier = {key: value for key, value in metadata if key in _CARRIERS}
        name = method.removeprefix("/")
        epoch = time.time() - time.monotonic()
        span = self._tracer.start_span(
            name,
            context=self._propagator.extract(carrier),
            kind=api.SpanKind.SERVER,
            attributes={
                "rpc.system.name": "grpc",
                "rpc.method": name,
                "seqserve.request_id": request_id,
            },
            start_time=_nanoseconds(started_at + epoch),
        )
        return CallTrace(self._tracer, span, epoch) if span.is_recording() else None

    def close(self) -> None:
        """Sends what is left, or gives it up. Blocks."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
        if closing.is_alive():
            _log.warning("spans are lost, the collector does not take them", within=_CLOSE_SECONDS)
            self._exporter.shutdown()  # ends what the other thread waits for
            closing.join(_CLOSE_SECONDS)


class CallTrace:
    """The span of a call, or of one request of a stream, and those of its stages."""

    def __init__(self, tracer: Any, span: Any, epoch: float) -> None:
        self._tracer = tracer
        self._span = span
        self._epoch = epoch
        """Of the monotonic clock, in seconds since 1970."""
        self._context = api.set_span_in_context(span)
        self._num_source_tokens = self._num_target_tokens = self._num_sequences = 0

    @property
    def trace_id(self) -> str:
        """In hexadecimal digits, as collectors show it."""
        trace_id: str = api.format_trace_id(self._span.get_span_context().trace_id)
        return trace_id

    def add(
        self,
        name: str,
        started_at: float,
        finished_at: float,
        attributes: Mapping[str, int] | None = None,
    ) -> None:
        """Adds a stage that is over."""
        span = self._tracer.start_span(
            name,
            context=self._context,
            attributes=attributes,
            start_time=_nanoseconds(started_at + self._epoch),
        )
        span.end(_nanoseconds(finished_at + self._epoch))

    def add_sequences(self, sequences: Iterable[Sequence]) -> None:
        """Adds the stages of sequences; those that are not over end now."""
        now = time.monotonic()
        for sequence in sequences:
            num_target_tokens = _count_target_tokens(sequence)
            self._num_source_tokens += sequence.source_length
            self._num_target_tokens += num_target_tokens
            if self._num_sequences < _MAX_SEQUENCES:
                self._add_sequence(sequence, num_target_tokens, now)
            self._num_sequences += 1

    def _add_sequence(self, sequence: Sequence, num_target_tokens: int, now: float) -> None:
        number = {"seqserve.sequence": self._num_sequences}
        started_at, encoded_at = sequence.started_at, sequence.encoded_at
        if sequence.is_cached:
            self.add("cached", started_at, started_at, number)
            return
        self.add("queue", sequence.submitted_at, started_at or now, number)
        if not started_at:
            return
        encoding = {
            **number,
            "seqserve.source_tokens": sequence.source_length,
            "seqserve.batch_rows": sequence.first_batch_rows,
        }
        self.add("encode", started_at, encoded_at or now, encoding)
        if not encoded_at or sequence.search is None:
            return
        decoding = {
            **number,
            "seqserve.rows": len(sequence.rows),
            "seqserve.target_tokens": num_target_tokens,
            "seqserve.batch_rows": sequence.last_batch_rows,
        }
        self.add("decode", encoded_at, sequence.finished_at or now, decoding)

    def begin_part(self, name: str, request_id: str, started_at: float) -> "CallTrace":
        """Begins the span of a request of a stream."""
        span = self._tracer.start_span(
            name,
            context=self._context,
            attributes={"seqserve.request_id": request_id},
            start_time=_nanoseconds(started_at + self._epoch),
        )
        return CallTrace(self._tracer, span, self._epoch)

    def end(self, code: grpc.StatusCode, labels: Mapping[str, str], finished_at: float) -> None:
        """Ends the span."""
        span = self._span
        span.set_attribute("rpc.response.status_code", code.name)
        if code in _SERVER_ERRORS:
            span.set_attribute("error.type", code.name)
            span.set_status(api.StatusCode.ERROR)
        for name, value in labels.items():
            if value:
                span.set_attribute(f"seqserve.{name}", value)
        if self._num_sequences:
            span.set_attribute("seqserve.sequences", self._num_sequences)
            span.set_attribute("seqserve.source_tokens", self._num_source_tokens)
            span.set_attribute("seqserve.target_tokens", self._num_target_tokens)
        span.end(_nanoseconds(finished_at + self._epoch))


def _count_target_tokens(sequence: Sequence) -> int:
    """Tokens that were generated, if the sequence was answered."""
    future = sequence.future
    if not isinstance(future, asyncio.Future) or not future.done() or future.cancelled():
        return 0
    if future.exception() is not None:
        return 0
    answer = future.result()
    if not isinstance(answer, Generation):
        return 0
    return sum(len(one.tokens) - one.num_prefix_tokens for one in answer.hypotheses)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
