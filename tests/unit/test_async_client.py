"""The client that awaits: the same answers and errors as the one that blocks, and cancellation."""

import asyncio
import dataclasses
import inspect
import threading
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

from fake_server import FakeServer, Refusal
from seqserve.client import AsyncClient, CallError, Client, Embeddings

VIOLATION = error_details_pb2.BadRequest.FieldViolation(field="inputs[0]", description="empty")
WRONG = Refusal(
    grpc.StatusCode.INVALID_ARGUMENT,
    "empty",
    error_details_pb2.BadRequest(field_violations=[VIOLATION]),
)
FULL = Refusal(
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "full",
    error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=250_000_000)),
    pushback_milliseconds=-1,
)


def plain(result: Any) -> Any:
    """The result in a form that has an equality."""
    if isinstance(result, Embeddings):
        assert result.vectors.dtype == np.float32
        return dataclasses.asdict(result) | {"vectors": result.vectors.tolist()}
    return result


@pytest.mark.parametrize(
    ("method", "arguments", "options"),
    [
        ("generate", ["ab"], {}),
        ("generate", [["ab", [4, 5]]], {"model": "m", "version": "2", "truncate": True}),
        ("generate", ["long"], {"num_beams": 4, "length_penalty": 0.0, "early_stopping": False}),
        ("embed", ["abc"], {}),
        ("embed", [["abc", "d"]], {"model": "m", "normalize": False, "truncate": True}),
        ("list_models", [], {}),
        ("get_model", ["fake", "1"], {}),
        ("tokenize", ["ab"], {"model": "m", "version": "2"}),
        ("tokenize", [["ab", ""]], {}),
        ("detokenize", [[[97, 98], []]], {"model": "m"}),
        ("is_ready", [], {}),
        ("is_ready", ["unknown"], {}),
    ],
)
async def test_calls_and_results_are_the_same(
    server: FakeServer, method: str, arguments: list[Any], options: dict[str, Any]
) -> None:
    """Each method sends the request and returns the result that the blocking one does."""
    with Client(server.target) as client:
        blocking = getattr(client, method)(*arguments, **options)
    async with AsyncClient(server.target) as other:
        awaited = await getattr(other, method)(*arguments, **options)
    assert plain(awaited) == plain(blocking)
    assert type(awaited) is type(blocking)
    half = len(server.requests) // 2
    assert server.requests[:half] == server.requests[half:]


async def test_streams_are_the_same(server: FakeServer) -> None:
    """The request, the pieces and the result."""
    with Client(server.target) as client, client.generate_stream("abc", num_beams=2) as blocking:
        pieces = list(blocking)
    async with (
        AsyncClient(server.target) as other,
        other.generate_stream("abc", num_beams=2) as stream,
    ):
        assert [piece async for piece in stream] == pieces
    assert stream.result == blocking.result
    assert server.requests[0] == server.requests[1]


@pytest.mark.parametrize("refusal", [WRONG, FULL], ids=["wrong", "full"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["call", "stream"])
async def test_errors_are_the_same(server: FakeServer, refusal: Refusal, is_stream: bool) -> None:
    """Code, message, fields, time to come back and request id."""
    server.refusals = [refusal] * 2
    with Client(server.target) as client, pytest.raises(CallError) as blocking:
        list(client.generate_stream("a")) if is_stream else client.generate("a")

    async def read(client: AsyncClient) -> None:
        _ = [piece async for piece in client.generate_stream("a")]

    async with AsyncClient(server.target) as other:
        with pytest.raises(CallError) as awaited:
            await (read(other) if is_stream else other.generate("a"))
    assert vars(awaited.value) == vars(blocking.value)
    assert awaited.value.request_id == "request-1"
    if refusal is WRONG:
        assert awaited.value.fields == {"inputs[0]": "empty"}
        assert awaited.value.retry_after_seconds is None
    else:
        assert awaited.value.fields == {}
        assert awaited.value.retry_after_seconds == 0.25


def test_signatures_are_the_same() -> None:
    """Same methods, parameters, kinds, defaults and types; batches may also be awaited."""

    def signatures(kind: type) -> dict[str, list[inspect.Parameter]]:
        return {
            name: [
                one
                for one in inspect.signature(method).parameters.values()
                if (name, one.name) != ("embed_stream", "batches")
            ]
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if name == "__init__" or not name.startswith("_")
        }

    assert signatures(AsyncClient) == signatures(Client)


async def test_unavailable_is_tried_again(server: FakeServer) -> None:
    """Two refusals, then an answer: the caller sees the answer, the server three attempts."""
    server.refusals = [Refusal(grpc.StatusCode.UNAVAILABLE, "not yet")] * 2
    async with AsyncClient(server.target) as client:
        assert (await client.generate("a"))[0].text == "A"
    assert len(server.requests) == 3


async def test_without_retries_the_first_refusal_is_final(server: FakeServer) -> None:
    """The server sees one attempt."""
    server.refusals = [Refusal(grpc.StatusCode.UNAVAILABLE, "not yet")]
    async with AsyncClient(server.target, retries=False) as client:
        with pytest.raises(CallError, match="UNAVAILABLE: not yet"):
            await client.generate("a")
    assert len(server.requests) == 1


async def test_short_pushback_beats_the_backoff(server: FakeServer) -> None:
    """Three retries come when the server said, long before the back-off would let them."""
    refusal = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", pushback_milliseconds=30)
    server.refusals = [refusal] * 3
    async with AsyncClient(server.target) as client:
        await client.generate("a")
    # The back-off would have been 0.1 + 0.2 + 0.4 s, less a fifth.
    assert 0.08 <= server.arrivals[-1] - server.arrivals[0] < 0.5


async def test_deadline_ends_calls_and_streams(server: FakeServer) -> None:
    """DEADLINE_EXCEEDED, also for a timeout of 0, which is not the client's own."""
    server.hold = threading.Event()
    async with AsyncClient(server.target, timeout_seconds=30) as client:
        for timeout_seconds in (0.05, 0):
            with pytest.raises(CallError, match="DEADLINE_EXCEEDED"):
                await client.generate("a", timeout_seconds=timeout_seconds)
            with pytest.raises(CallError, match="DEADLINE_EXCEEDED"):
                async for _ in client.generate_stream("ab", timeout_seconds=timeout_seconds):
                    pass


async def test_result_before_the_end_is_an_error(server: FakeServer) -> None:
    """Before the first piece, and between pieces."""
    async with AsyncClient(server.target) as client, client.generate_stream("ab") as stream:
        with pytest.raises(RuntimeError, match="not been read to its end"):
            _ = stream.result
        async for _ in stream:
            with pytest.raises(RuntimeError, match="not been read to its end"):
                _ = stream.result
        assert stream.result.text == "AB"


async def test_cancelled_task_leaves_its_stream(server: FakeServer) -> None:
    """Asyncio's own cancellation passes through, and the server learns of it."""
    server.hold = threading.Event()
    is_reading = asyncio.Event()

    async def read(client: AsyncClient) -> None:
        async for _ in client.generate_stream("abc"):
            is_reading.set()

    async with AsyncClient(server.target) as client:
        task = asyncio.create_task(read(client))
        await asyncio.wait_for(is_reading.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.cancelled.wait, 5)


async def test_token_is_sent_with_calls_and_streams(server: FakeServer) -> None:
    """As authorization metadata; without a token there is none."""
    async with AsyncClient(server.target, token="secret") as client:
        await client.list_models()
        _ = [piece async for piece in client.generate_stream("a")]
    async with AsyncClient(server.target) as client:
        await client.list_models()
    tokens = [metadata.get("authorization") for metadata in server.metadata]
    assert tokens == ["Bearer secret", "Bearer secret", None]


async def test_readiness_is_the_servers_word(server: FakeServer) -> None:
    """NOT_SERVING is not ready."""
    async with AsyncClient(server.target) as client:
        assert await client.is_ready()
        server.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert not await client.is_ready()


async def test_unreachable_server_is_unavailable_and_not_ready() -> None:
    """No exception of gRPC's own comes out."""
    async with AsyncClient("127.0.0.1:1", retries=False) as client:
        assert not await client.is_ready(timeout_seconds=1)
        with pytest.raises(CallError, match="UNAVAILABLE"):
            await client.list_models()
