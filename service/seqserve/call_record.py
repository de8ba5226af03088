"""The call that is being answered, as its log lines, its metrics and its spans know it.

The interceptor opens a record for each call. Whatever works for the call finds it in the context of
its task, threads that tokenize included; the threads of models work for many and do not.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

import grpc
import structlog

from seqserve.model_metrics import ModelMetrics
from seqserve.sequence import Sequence
from seqserve.trace import Trace

_NO_MODEL = {"model_name": "", "model_version": ""}
_current: ContextVar["CallRecord | None"] = ContextVar("call_record", default=None)


@dataclasses.dataclass(slots=True, eq=False)
class CallRecord:
    """One call, or one request of a stream of requests."""

    request_id: str
    started_at: float
    """Seconds on the monotonic clock."""
    trace: Trace | None = None
    """None for calls whose spans nobody wants."""
    model: ModelMetrics | None = None
    """Of the model that answers, once it was found; of a stream, of its first request."""
    code: grpc.StatusCode = grpc.StatusCode.OK
    """What a request of a stream is answered with."""

    @property
    def labels(self) -> dict[str, str]:
        """Name and version of the model; empty ones if none of ours was named."""
        return _NO_MODEL if self.model is None else self.model.labels

    def observe_stage(self, name: str, started_at: float, finished_at: float) -> None:
        """Records work on the texts of the call: tokenizing, or what follows the model."""
        if self.model is not None and name == "tokenize":
            self.model.observe_tokenizing(finished_at - started_at)
        if self.trace is not None:
            self.trace.add(name, started_at, finished_at)

    def begin_sequences(self, sequences: Iterable[Sequence]) -> None:
        """Tells sequences which call they belong to."""
        for sequence in sequences:
            sequence.request_id, sequence.arrived_at = self.request_id, self.started_at

    def end_sequences(self, sequences: Iterable[Sequence]) -> None:
        """Records what became of sequences, answered or not."""
        if self.trace is not None:
            self.trace.add_sequences(sequences)


def current_call() -> CallRecord | None:
    """The call that the running task works for; None outside of calls."""
    return _current.get()


def note_model(model: ModelMetrics) -> None:
    """Records which model answers the current call, if there is one."""
    record = _current.get()
    if record is not None:
        record.model = model


def enter_call(record: CallRecord) -> None:
    """Makes a record the one of the running task, whose log lines have its id from now on."""
    _current.set(record)
    structlog.contextvars.bind_contextvars(request_id=record.request_id)
    if record.trace is not None:
        structlog.contextvars.bind_contextvars(trace_id=record.trace.trace_id)


@contextlib.contextmanager
def part_of_call(number: int) -> Iterator[CallRecord]:
    """Opens a record for a request of a stream, which is answered in a task of its own.

    Args:
        number: Its place in the stream, from 1, which tells its id from those of others.
    """
    whole = _current.get()
    assert whole is not None
    record = CallRecord(f"{whole.request_id}.{number}", time.monotonic())
    if whole.trace is not None:
        record.trace = whole.trace.begin_part("request", record.request_id, record.started_at)
    enter_call(record)
    try:
        yield record
    except BaseException:
        record.code = grpc.StatusCode.CANCELLED
        raise
    finally:
        whole.model = whole.model or record.model
        if record.trace is not None:
            record.trace.end(record.code, record.labels, time.monotonic())
