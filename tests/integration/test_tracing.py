"""Spans of calls, as a collector receives them over OTLP."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError
from seqserve.trace import open_tracer
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from serving import MakeServer, source

PATIENCE_SECONDS = 20.0
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
CANARY = "canary words"
METHOD = "seqserve.v1.GenerationService/Generate"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.endpoint = ""
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Takes spans."""
        await self.is_open.wait()
        for part in request.resource_spans:
            self.resources.append(read(part.resource))
            for scope in part.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Any]:
        """The spans of a name, in the order in which they began."""
        found = [span for span in self.spans if span.name == name]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """A running collector, on the loop of the test."""
    servicer = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    servicer.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(None)


def read(message: Any) -> dict[str, Any]:
    """Attributes as a dictionary."""
    return {
        one.key: getattr(one.value, str(one.value.WhichOneof("value")))
        for one in message.attributes
    }


async def test_call_and_its_stages_continue_the_callers_trace(
    serving: MakeServer, collector: Collector
) -> None:
    """One span of the call below the caller's, and one of each stage below that, within its time.

    Attributes are names and numbers; no text is among them.
    """
    before = time.time_ns()
    async with serving(tracing_endpoint=collector.endpoint) as running:
        reply = await running.generation.Generate(
            generation_pb2.GenerateRequest(
                model_name="tiny", inputs=[generation_pb2.GenerateInput(text=CANARY)]
            ),
            metadata=(("traceparent", PARENT), ("x-request-id", "id-1")),
        )
    (call,) = collector.named(METHOD)
    assert call.trace_id.hex() == PARENT.split("-")[1]
    assert call.parent_span_id.hex() == PARENT.split("-")[2]
    assert call.kind == 2  # SPAN_KIND_SERVER
    assert before <= call.start_time_unix_nano <= call.end_time_unix_nano <= time.time_ns()
    (result,) = reply.results
    num_target_tokens = len(result.hypotheses[0].token_ids)
    assert read(call) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "OK",
        "seqserve.request_id": "id-1",
        "seqserve.model_name": "tiny",
        "seqserve.model_version": "1",
        "seqserve.sequences": 1,
        "seqserve.source_tokens": result.source_token_count,
        "seqserve.target_tokens": num_target_tokens,
    }
    assert call.status.code == 0
    stages = [span for (span,) in map(collector.named, ("tokenize", "queue", "encode", "decode"))]
    assert len(collector.spans) == 1 + len(stages)
    end = call.start_time_unix_nano
    for span in stages:
        assert (span.trace_id, span.parent_span_id) == (call.trace_id, call.span_id)
        assert end <= span.start_time_unix_nano + 1000  # rounded to nanoseconds, in floats
        end = span.end_time_unix_nano
        assert span.start_time_unix_nano <= end <= call.end_time_unix_nano + 1000
    told = result.timing.decode_duration.ToNanoseconds()
    found = stages[-1].end_time_unix_nano - stages[-1].start_time_unix_nano
    assert abs(found - told) < 10_000
    assert read(stages[2]) == {
        "seqserve.sequence": 0,
        "seqserve.source_tokens": result.source_token_count,
        "seqserve.batch_rows": 1,
    }
    assert read(stages[3]) == {
        "seqserve.sequence": 0,
        "seqserve.rows": 1,
        "seqserve.target_tokens": num_target_tokens,
        "seqserve.batch_rows": 1,
    }
    assert CANARY not in str(collector.spans)
    assert collector.resources[0]["service.name"] == "seqserve"


async def test_kept_answer_has_no_stages(serving: MakeServer, collector: Collector) -> None:
    """Nothing was computed. An input that waited for another has the stages of its wait."""
    request = generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([5, 6, 1])] * 2)
    settings = {"response_cache_bytes": 1_000_000, "deduplicate": True}
    async with serving(tracing_endpoint=collector.endpoint, **settings) as running:
        for _ in range(2):
            await running.generation.Generate(request)
    calls = collector.named(METHOD)
    for name, numbers in (("cached", [0, 2]), ("queue", [2, 0]), ("decode", [2, 0])):
        spans = collector.named(name)
        found = [sum(one.parent_span_id == call.span_id for one in spans) for call in calls]
        assert sorted(found) == sorted(numbers), name
    assert [read(span)["seqserve.rows"] for span in collector.named("decode")] == [1, 1]


async def test_failed_calls_have_failed_spans(serving: MakeServer, collector: Collector) -> None:
    """What is the server's fault is an error; what is the caller's is not."""
    async with serving(tracing_endpoint=collector.endpoint) as running:
        for name in ("nobody", "sentence"):
            with pytest.raises(grpc.aio.AioRpcError):
                await running.generation.Generate(
                    generation_pb2.GenerateRequest(model_name=name, inputs=[source([5])])
                )
    spans = collector.named(METHOD)
    codes = [read(span)["rpc.response.status_code"] for span in spans]
    assert codes == ["NOT_FOUND", "UNIMPLEMENTED"]
    assert [span.status.code for span in spans] == [0, 2]
    assert [read(span).get("error.type") for span in spans] == [None, "UNIMPLEMENTED"]


async def test_streams_have_a_span_for_each_request(
    serving: MakeServer, collector: Collector
) -> None:
    """Below that of the stream; stages belong to their request."""
    items = [
        encoding_pb2.EmbedStreamRequest(request=encoding_pb2.EmbedRequest(inputs=["a", "b"]))
        for _ in range(2)
    ]
    async with serving(tracing_endpoint=collector.endpoint) as running:
        answers = [answer async for answer in running.encoding.EmbedStream(iter(items))]
    (stream,) = collector.named("seqserve.v1.EncodingService/EmbedStream")
    requests = collector.named("request")
    assert len(answers) == len(requests) == 2
    for request in requests:
        assert request.parent_span_id == stream.span_id
        encodes = [
            span for span in collector.named("encode") if span.parent_span_id == request.span_id
        ]
        assert [read(span)["seqserve.sequence"] for span in encodes] in ([0, 1], [1, 0])
        assert read(request)["seqserve.sequences"] == 2


async def test_large_calls_have_spans_for_some_of_their_inputs(
    serving: MakeServer, collector: Collector
) -> None:
    """And say how many inputs there were."""
    async with serving(tracing_endpoint=collector.endpoint) as running:
        await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=["a"] * 40))
    (call,) = collector.named("seqserve.v1.EncodingService/Embed")
    assert read(call)["seqserve.sequences"] == 40
    assert len(collector.named("queue")) == len(collector.named("encode")) == 16


@pytest.mark.parametrize(
    ("ratio", "parent", "is_traced"),
    [
        (1.0, None, True),
        (0.0, None, False),
        (0.0, PARENT, True),
        (1.0, UNSAMPLED, False),
        (1.0, "garbage", True),
    ],
)
async def test_callers_decide_what_is_traced_else_a_ratio(
    serving: MakeServer, collector: Collector, ratio: float, parent: str | None, is_traced: bool
) -> None:
    """A trace that began elsewhere is whole or absent."""
    metadata = () if parent is None else (("traceparent", parent),)
    settings = {"tracing_endpoint": collector.endpoint, "tracing_sample_ratio": ratio}
    async with serving(**settings) as running:
        await running.model.ListModels(model_pb2.ListModelsRequest(), metadata=metadata)
    assert len(collector.spans) == is_traced


async def test_collector_that_is_away_harms_nobody(serving: MakeServer) -> None:
    """Calls are answered, and the server stops within seconds."""
    async with serving(tracing_endpoint="http://127.0.0.1:9") as running:
        await running.model.ListModels(model_pb2.ListModelsRequest())
        began_at = time.monotonic()
    assert time.monotonic() - began_at < 10


async def test_collector_that_does_not_answer_is_given_up(
    serving: MakeServer, collector: Collector
) -> None:
    """The server stops in time, and says that spans are lost."""
    collector.is_open.clear()
    with structlog.testing.capture_logs() as logs:
        async with serving(tracing_endpoint=collector.endpoint) as running:
            await running.model.ListModels(model_pb2.ListModelsRequest())
            began_at = time.monotonic()
    assert time.monotonic() - began_at < 10
    assert [one for one in logs if one["event"].startswith("spans are lost")]
    collector.is_open.set()


def test_nothing_is_imported_or_started_by_default() -> None:
    """Without an endpoint there is no tracer, and OpenTelemetry is not even imported."""
    assert open_tracer(ServerConfig()) is None
    script = (
        "import sys, seqserve.__main__; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


def test_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.delitem(sys.modules, "seqserve.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError) as caught:
        open_tracer(ServerConfig(tracing_endpoint="http://localhost:4317"))
    assert str(caught.value) == (
        "tracing_endpoint is set, but opentelemetry is not installed; install seqserve[tracing], "
        "or leave tracing_endpoint out"
    )


@pytest.mark.parametrize("endpoint", ["localhost:4317", "http://", "ftp://a:1", "http://a:1/v1"])
def test_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    """Spans would be sent nowhere, silently."""
    with pytest.raises(ValueError, match="tracing_endpoint"):
        ServerConfig(tracing_endpoint=endpoint)
