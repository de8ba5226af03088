"""Where the spans of calls go: nowhere, unless ``tracing_endpoint`` is set."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError
from seqserve.sequence import Sequence


class Trace(Protocol):
    """The span of one call, or of one request of a stream, and those of its stages.

    All times are seconds on the monotonic clock.
    """

    @property
    def trace_id(self) -> str:
        """Under which a collector shows it, for the log."""

    def add(self, name: str, started_at: float, finished_at: float) -> None:
        """Adds a stage that is over."""

    def add_sequences(self, sequences: Iterable[Sequence]) -> None:
        """Adds the stages of sequences that are answered or abandoned."""

    def begin_part(self, name: str, request_id: str, started_at: float) -> "Trace":
        """Begins the span of a request of a stream."""

    def end(self, code: grpc.StatusCode, labels: Mapping[str, str], finished_at: float) -> None:
        """Ends the span.

        Args:
            code: What was answered.
            labels: Name and version of the model; empty if there was none.
            finished_at: When.
        """


class Tracer(Protocol):
    """What begins traces, and sends them off."""

    def begin(
        self,
        method: str,
        request_id: str,
        metadata: Iterable[tuple[str, str | bytes]],
        started_at: float,
    ) -> Trace | None:
        """Begins the span of a call, as part of the caller's trace if it has one.

        Returns:
            The trace; None if this call is not one of those that are kept.
        """

    def close(self) -> None:
        """Sends what is left, for a few seconds at most. Blocks."""


def open_tracer(config: ServerConfig) -> Tracer | None:
    """Opens what the settings ask for.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    if not config.tracing_endpoint:
        return None
    try:
        # Only here: nobody pays for what is off.
        from seqserve.tracing import OpenTelemetryTracer
    except ImportError as error:
        raise ConfigurationError(
            f"tracing_endpoint is set, but {error.name} is not installed; install "
            "seqserve[tracing], or leave tracing_endpoint out"
        ) from error
    return OpenTelemetryTracer(config.tracing_endpoint, config.tracing_sample_ratio)
