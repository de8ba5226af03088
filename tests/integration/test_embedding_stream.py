"""Embedding in bulk: order, errors of single requests, flow control, the end."""

import asyncio
import itertools
import threading
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from seqserve.batch import Batch, Outcome
from seqserve.client import AsyncClient, CallError
from seqserve.v1 import encoding_pb2, model_pb2
from serving import MakeServer, RunningServer

PATIENCE_SECONDS = 20.0
Request = encoding_pb2.EmbedStreamRequest


def make_request(*texts: str, **fields: Any) -> Request:
    """A request of a stream."""
    return Request(request=encoding_pb2.EmbedRequest(inputs=texts, **fields))


async def test_answers_come_in_order_and_are_those_of_embed(serving: MakeServer) -> None:
    """Many requests of different lengths and options, more than are read ahead."""
    requests = [
        make_request(*["a b c " * (1 + index % 5)] * (1 + index % 3), normalize=index % 2 == 0)
        for index in range(60)
    ]
    async with serving() as running:
        answers = [one async for one in running.encoding.EmbedStream(iter(requests))]
        alone = [await running.encoding.Embed(one.request) for one in requests]
        assert running.num_outstanding == 0
    assert len(answers) == len(requests)
    for answer, single in zip(answers, alone, strict=True):
        assert answer.response.model == single.model
        assert [list(one.values) for one in answer.response.embeddings] == [
            list(one.values) for one in single.embeddings
        ]


async def test_an_error_is_that_of_its_request_alone(serving: MakeServer) -> None:
    """With the code, text and details of a call of its own; what follows is answered."""
    requests = [
        make_request("a"),
        make_request("b", ""),
        Request(),
        make_request("c", model_name="nope"),
        make_request("d"),
    ]
    async with serving() as running:
        answers = [one async for one in running.encoding.EmbedStream(iter(requests))]
    assert [one.WhichOneof("outcome") for one in answers] == [
        "response",
        *["error"] * 3,
        "response",
    ]
    errors = [one.error for one in answers[1:4]]
    assert [(one.code, one.message) for one in errors] == [
        (3, "`inputs[1]` must not be empty"),
        (3, "`request` must be set"),
        (5, "there is no model 'nope'; there are: long, sentence, tiny"),
    ]
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in errors[0].details)
    assert bad_request.field_violations[0].field == "inputs[1]"


async def test_malformed_bytes_are_an_error_of_their_request(serving: MakeServer) -> None:
    """The stream goes on behind them."""
    good = make_request("a").SerializeToString()
    async with serving() as running:
        call: Any = running.channel.stream_stream(
            "/seqserve.v1.EncodingService/EmbedStream",
            request_serializer=bytes,
            response_deserializer=encoding_pb2.EmbedStreamResponse.FromString,
        )
        answers = [one async for one in call(iter([b"\xff\xff", good]))]
    assert answers[0].error.message == "the request's bytes are not a message of its type"
    assert len(answers[1].response.embeddings) == 1


async def test_unexpected_errors_leak_nothing(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is INTERNAL without its text."""
    async with serving() as running:

        def explode(*args: object, **kwargs: object) -> None:
            raise RuntimeError("secret path")

        monkeypatch.setattr(running.registry.find("sentence", "", None).lanes, "submit", explode)
        (answer,) = [one async for one in running.encoding.EmbedStream(iter([make_request("a")]))]
    assert answer.error.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in str(answer)


async def test_a_full_server_delays_a_stream_and_refuses_others(serving: MakeServer) -> None:
    """Requests wait for the places of those before them; places of others they do not get."""
    requests = [make_request("a", "b") for _ in range(20)]
    async with serving(max_outstanding=3, max_inputs_per_request=3) as running:
        answers = [one async for one in running.encoding.EmbedStream(iter(requests))]
        assert {one.WhichOneof("outcome") for one in answers} == {"response"}
        with running.registry.find("sentence", "", None).admission.admit(2):
            answers = [one async for one in running.encoding.EmbedStream(iter(requests[:2]))]
    assert [one.error.code for one in answers] == [8, 8]
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in answers[0].error.details)


class Gate:
    """Holds batches of the model that embeds."""

    def __init__(self, running: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.arrived = threading.Event(), threading.Event()
        engine = running.registry.find("sentence", "", None).lanes.workers[0]._engine
        whole = engine.run

        def wait(batch: Batch, *options: object) -> list[Outcome]:
            self.arrived.set()
            assert self.opened.wait(PATIENCE_SECONDS)
            return whole(batch)

        monkeypatch.setattr(engine, "run", wait)


async def test_only_a_few_requests_are_read_ahead(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first is computed the server takes in no more than it keeps answers for."""
    async with serving() as running:
        gate = Gate(running, monkeypatch)
        stream = running.encoding.EmbedStream(iter([make_request("a")] * 100))
        assert await asyncio.to_thread(gate.arrived.wait, PATIENCE_SECONDS)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding < 66:
                await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
        assert running.num_outstanding == 66
        gate.opened.set()
        assert len([one async for one in stream]) == 100


async def test_a_stream_that_is_left_gives_its_places_back(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for its answers any more."""
    async with serving() as running:
        gate = Gate(running, monkeypatch)
        stream = running.encoding.EmbedStream(iter([make_request("a")] * 30))
        assert await asyncio.to_thread(gate.arrived.wait, PATIENCE_SECONDS)
        stream.cancel()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding:
                await asyncio.sleep(0)
        gate.opened.set()


@pytest.mark.parametrize(
    ("request_ahead", "num_inputs"),
    [(make_request(*["a"] * 100), 1000), (make_request("a", return_token_embeddings=True), 1)],
    ids=["inputs", "states of tokens"],
)
async def test_requests_ahead_have_few_inputs(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch, request_ahead: Request, num_inputs: int
) -> None:
    """Large answers that nobody may read do not pile up; all are given in the end."""
    async with serving() as running:
        gate = Gate(running, monkeypatch)
        stream = running.encoding.EmbedStream(iter([request_ahead] * 12))
        assert await asyncio.to_thread(gate.arrived.wait, PATIENCE_SECONDS)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding < num_inputs:
                await asyncio.sleep(0)
        # Another call, sent after them all, finds no more places taken.
        await running.model.ListModels(model_pb2.ListModelsRequest())
        assert running.num_outstanding == num_inputs
        gate.opened.set()
        assert len([one async for one in stream]) == 12


async def test_deadline_of_the_call_ends_the_stream(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of every call."""
    async with serving() as running:
        gate = Gate(running, monkeypatch)
        stream = running.encoding.EmbedStream(iter([make_request("a")]), timeout=0.2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        gate.opened.set()


async def test_shutdown_tells_those_who_still_send(serving: MakeServer) -> None:
    """UNAVAILABLE, whether gRPC meets the end of the stream reading or writing."""
    async with serving(drain_seconds=PATIENCE_SECONDS) as running:
        async with AsyncClient(f"127.0.0.1:{running.ports.grpc}") as client:
            answers = client.embed_stream(itertools.repeat(["a"] * 8))
            for _ in range(3):
                assert not isinstance(await anext(answers), CallError)
            stopping = asyncio.create_task(running.server.stop())

            async def read_on() -> None:
                async for answer in answers:
                    assert not isinstance(answer, CallError)

            with pytest.raises(CallError) as caught:
                await read_on()
        assert caught.value.code == "UNAVAILABLE"
        async with asyncio.timeout(PATIENCE_SECONDS):
            await stopping


async def test_shutdown_answers_what_was_read(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open stream does not hold the server up; the caller is told to go elsewhere."""
    async with serving(drain_seconds=PATIENCE_SECONDS) as running:
        gate = Gate(running, monkeypatch)
        stream = running.encoding.EmbedStream()
        await stream.write(make_request("a"))
        assert await asyncio.to_thread(gate.arrived.wait, PATIENCE_SECONDS)
        stopping = asyncio.create_task(running.server.stop())
        gate.opened.set()
        answer: Any = await stream.read()
        assert len(answer.response.embeddings) == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == (
            "the server is shutting down; send what was not answered to another replica"
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            await stopping
