"""Stopping: calls that began are answered, later ones refused, and what takes too long is told."""

import asyncio
import contextlib
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from planted_tokenizer import plant
from processes import read_metrics, start_process
from seqserve.v1 import encoding_pb2, generation_pb2, generation_pb2_grpc, model_pb2
from serving import MakeServer, RunningServer, source, status_of

PATIENCE_SECONDS = 20.0
REFUSED = "UNAVAILABLE: the server is shutting down; try another replica"
ENDED = "UNAVAILABLE: the server shut down before the call was done; try another replica"
IN_FLIGHT = 'seqserve_requests_in_flight{method="/seqserve.v1.GenerationService/Generate"}'


class Gate:
    """Holds the threads that tokenize."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.opened = threading.Event()

    async def arrival(self) -> None:
        """Waits until a thread has come."""
        assert await asyncio.to_thread(self.arrived.wait, PATIENCE_SECONDS)


@contextlib.contextmanager
def held_tokenizer(
    running: RunningServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> Iterator[Gate]:
    """Lets no text through a model's tokenizer until the gate is opened."""
    gate = Gate()
    tokenizer = running.registry.find(name, "", None).source_tokenizer

    def wait(text: str) -> None:
        gate.arrived.set()
        assert gate.opened.wait(PATIENCE_SECONDS)

    with monkeypatch.context() as patch:
        plant(patch, tokenizer, wait)
        try:
            yield gate
        finally:
            gate.opened.set()


def reason(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo of a refusal, whose request id is the one of the metadata."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.metadata["request_id"] == trailers["x-request-id"]
    return info


async def call_until_refused(running: RunningServer) -> grpc.aio.AioRpcError:
    """What a caller is refused with who has not heard; it is served for a second at most."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await running.model.ListModels(model_pb2.ListModelsRequest())
            except grpc.aio.AioRpcError as error:
                return error


LONG_TEXT = "cat dog " * 1000
"""Too long to be tokenized on the event loop."""


async def test_calls_that_began_are_answered_and_later_ones_refused(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is still being tokenized has begun; it is waited for as long as it takes."""
    async with serving() as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        with held_tokenizer(running, monkeypatch, "sentence") as gate:
            call = running.encoding.Embed(
                encoding_pb2.EmbedRequest(inputs=[LONG_TEXT], truncate=True)
            )
            await gate.arrival()
            stop = asyncio.create_task(running.server.stop())
            state = await watch.read()
            refusal = await call_until_refused(running)
            await asyncio.wait([stop], timeout=0.5)  # twice the grace that gRPC is given
            assert not stop.done()
            gate.opened.set()
            reply = await call
            await stop
    assert state.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert status_of(refusal) == REFUSED
    assert reason(refusal).reason == "UnavailableError"
    assert len(reply.embeddings) == 1


async def test_calls_that_take_too_long_are_told(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ``drain_seconds`` every call that is left ends with a status of ours, and counts so."""
    async with serving(drain_seconds=0.1) as running:
        with (
            held_tokenizer(running, monkeypatch, "sentence") as gate,
            held_tokenizer(running, monkeypatch, "tiny") as other_gate,
        ):
            unary = running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=[LONG_TEXT]))
            stream = running.generation.GenerateStream(
                generation_pb2.GenerateStreamRequest(
                    model_name="tiny", input=generation_pb2.GenerateInput(text=LONG_TEXT)
                )
            )
            await gate.arrival()
            await other_gate.arrival()
            await running.server.stop()
        for call in (unary, stream.read()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert status_of(caught.value) == ENDED
            assert reason(caught.value).reason == "UnavailableError"
        for method in ("EncodingService/Embed", "GenerationService/GenerateStream"):
            assert running.count_calls("UNAVAILABLE", f"/seqserve.v1.{method}") == 1
        assert running.num_outstanding == 0


async def test_drain_that_runs_out_of_time_exits_0(store: Path) -> None:
    """Calls are answered or told; none hears gRPC's own words."""
    process = await asyncio.to_thread(
        start_process,
        store,
        *("--max-batch-size", "4", "--max-num-beams", "4", "--drain-seconds", "0"),
    )
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    match = re.search(r"grpc=(\S+) .*metrics=\S+:(\d+)", line)
    assert match, line
    async with grpc.aio.insecure_channel(match[1]) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(
            model_name="tiny", inputs=[source([7] * 20, num_beams=4)] * 20
        )
        calls = [stub.Generate(request) for _ in range(10)]
        while f"{IN_FLIGHT} 10.0" not in await read_metrics(int(match[2])):
            assert not any(call.done() for call in calls), "too fast to be interrupted"
        process.send_signal(signal.SIGTERM)
        ends = await asyncio.gather(*calls, return_exceptions=True)
    _, errors = await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 0, errors
    failures = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    assert {status_of(failure) for failure in failures} == {ENDED}
    assert '"event": "drain ran out of time"' in errors
