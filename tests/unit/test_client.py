"""Both clients against a server with canned answers."""

import asyncio
import inspect
import threading
import time

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

from fake_server import FakeServer, Refusal
from seqserve.client import AsyncClient, CallError, Client, Piece, ScoredToken, Timing
from seqserve.client.arguments import as_list


def test_generation_is_parsed_whole(server: FakeServer) -> None:
    """Every field of the reply arrives; what is unset is None or empty."""
    with Client(server.target) as client:
        (generation,) = client.generate("long")
    first, second = generation.hypotheses
    assert (generation.text, first.score, first.finish_reason) == ("LONG", -0.5, "eos")
    assert (first.token_ids, first.token_log_probabilities) == ((5, 2), (-0.25, -0.25))
    assert (second.score, second.token_log_probabilities, second.finish_reason) == (
        *(None, ()),
        "length",
    )
    assert (generation.source_token_count, generation.truncated_token_count) == (4, 3)
    assert generation.timing == Timing(0.001, 0.002, 0.003)


def test_scores_are_parsed_whole(server: FakeServer) -> None:
    """Every field of the reply arrives."""
    with Client(server.target) as client:
        (scoring,) = client.score("long", ["ab", "c"], model="m", version="2", truncate=True)
    first, second = scoring.scores
    assert first.tokens == (ScoredToken(97, "a", -1.0), ScoredToken(98, "b", -1.0))
    assert (first.total_log_probability, first.mean_log_probability) == (-2.0, -1.0)
    assert second.total_log_probability == -1.0
    assert (scoring.source_token_count, scoring.truncated_token_count) == (4, 3)
    assert scoring.timing == Timing(0.001, 0.002, 0.003)
    (request,) = server.requests
    assert (request.model_name, request.model_version, request.truncate) == ("m", "2", True)


def test_unset_options_stay_unset(server: FakeServer) -> None:
    """The model's defaults apply to what the caller does not name."""
    inputs: list[str | list[int]] = ["a", [4, 5]]
    with Client(server.target) as client:
        client.generate(inputs, model="m", version="2", truncate=True, num_beams=3)
    (request,) = server.requests
    assert [field.name for field, _ in request.options.ListFields()] == ["num_beams"]
    assert (request.model_name, request.model_version, request.truncate) == ("m", "2", True)
    assert [one.WhichOneof("source") for one in request.inputs] == ["text", "token_ids"]


def test_flat_token_ids_are_refused() -> None:
    """Forgetting the inner list would otherwise send one input per token."""
    with pytest.raises(TypeError, match="must be wrapped in a list"):
        as_list([5, 6, 7])


async def test_both_clients_return_the_same(server: FakeServer) -> None:
    """Method by method, the awaited result equals the blocking one."""
    with Client(server.target) as client:
        blocking = [
            client.generate(["a", "b"]),
            client.score("ab", ["c", "de"]),
            client.list_models(),
            client.get_model(),
            client.tokenize("ab"),
            client.detokenize([[97, 98]]),
        ]
        vectors = client.embed(["abc", "d"], normalize=False).vectors
    async with AsyncClient(server.target) as other:
        awaited = [
            await other.generate(["a", "b"]),
            await other.score("ab", ["c", "de"]),
            await other.list_models(),
            await other.get_model(),
            await other.tokenize("ab"),
            await other.detokenize([[97, 98]]),
        ]
        other_vectors = (await other.embed(["abc", "d"], normalize=False)).vectors
        assert await other.is_ready()
        assert not await other.is_ready("unknown.Service")
    assert awaited == blocking
    assert np.array_equal(vectors, np.array([[3, 1], [1, 1]], np.float32))
    assert np.array_equal(vectors, other_vectors)


def test_both_clients_have_the_same_methods() -> None:
    """Same names, same parameters."""

    def signatures(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert signatures(Client) == signatures(AsyncClient)


def test_refusal_names_fields_and_request_id(server: FakeServer) -> None:
    """What is wrong with which field is on the exception."""
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="options.num_beams", description="too many"
    )
    server.refusals = [
        Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "too many",
            error_details_pb2.BadRequest(field_violations=[violation]),
        )
    ]
    with Client(server.target) as client, pytest.raises(CallError) as caught:
        client.generate("a")
    error = caught.value
    assert (error.code, error.message) == ("INVALID_ARGUMENT", "too many")
    assert error.fields == {"options.num_beams": "too many"}
    assert error.request_id == "request-1"
    assert str(error) == "INVALID_ARGUMENT: too many"


def test_unavailable_is_tried_again(server: FakeServer) -> None:
    """Two refusals, then an answer: the caller sees the answer."""
    server.refusals = [Refusal(grpc.StatusCode.UNAVAILABLE, "not yet")] * 2
    with Client(server.target) as client:
        assert client.generate("a")[0].text == "A"
    assert len(server.requests) == 3


def test_retries_can_be_turned_off(server: FakeServer) -> None:
    """Then the first refusal is final."""
    server.refusals = [Refusal(grpc.StatusCode.UNAVAILABLE, "not yet")]
    with Client(server.target, retries=False) as client, pytest.raises(CallError):
        client.generate("a")
    assert len(server.requests) == 1


def test_pushback_is_obeyed(server: FakeServer) -> None:
    """The next attempt comes when the server said, and not before."""
    server.refusals = [
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", pushback_milliseconds=400)
    ]
    started_at = time.monotonic()
    with Client(server.target) as client:
        assert client.generate("a")[0].text == "A"
    # The back-off would have been at most 0.12 s.
    assert time.monotonic() - started_at >= 0.35


def test_final_overload_says_when_to_come_back(server: FakeServer) -> None:
    """A negative push-back ends the retries; the time is on the exception."""
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2))
    server.refusals = [
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry, pushback_milliseconds=-1)
    ]
    with Client(server.target) as client, pytest.raises(CallError) as caught:
        client.generate("a")
    assert caught.value.retry_after_seconds == 2.0


def test_deadline_is_the_calls_or_the_clients(server: FakeServer) -> None:
    """A call that takes too long is DEADLINE_EXCEEDED."""
    server.hold = threading.Event()
    with Client(server.target, timeout_seconds=30) as client, pytest.raises(CallError) as caught:
        client.generate("a", timeout_seconds=0.05)
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_stream_yields_pieces_then_has_the_result(server: FakeServer) -> None:
    """The result is there after the last piece, and not before."""
    with Client(server.target) as client, client.generate_stream("ab", num_beams=2) as stream:
        with pytest.raises(RuntimeError, match="not been read to its end"):
            _ = stream.result
        assert list(stream) == [Piece("A", (0,)), Piece("B", (1,))]
        assert stream.result.text == "AB"


def test_leaving_a_stream_cancels_it(server: FakeServer) -> None:
    """The server learns that nobody reads on."""
    server.hold = threading.Event()
    with Client(server.target) as client:
        with client.generate_stream("abc") as stream:
            assert next(iter(stream)).text == "A"
        assert server.cancelled.wait(5)


async def test_leaving_an_awaited_stream_cancels_it(server: FakeServer) -> None:
    """The same for the client that awaits."""
    server.hold = threading.Event()
    async with AsyncClient(server.target) as client:
        async with client.generate_stream("abc") as stream:
            async for piece in stream:
                assert piece.text == "A"
                break
        assert await asyncio.to_thread(server.cancelled.wait, 5)


async def test_awaited_stream_yields_pieces_then_has_the_result(server: FakeServer) -> None:
    """As the blocking one."""
    async with AsyncClient(server.target) as client, client.generate_stream("ab") as stream:
        assert [piece.text async for piece in stream] == ["A", "B"]
        assert stream.result.text == "AB"


async def test_cancelling_the_task_is_no_call_error(server: FakeServer) -> None:
    """Asyncio's own cancellation passes through."""
    server.hold = threading.Event()
    async with AsyncClient(server.target) as client:
        task = asyncio.create_task(client.generate("a"))
        while not server.requests:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_token_is_sent_as_bearer(server: FakeServer) -> None:
    """With every call."""
    with Client(server.target, token="secret") as client:
        client.list_models()
    assert server.metadata[0]["authorization"] == "Bearer secret"


def test_name_of_the_caller_is_sent(server: FakeServer) -> None:
    """With every call that has one."""
    with Client(server.target, caller="nightly") as client:
        client.list_models()
    with Client(server.target) as client:
        client.list_models()
    assert [call.get("seqserve-caller") for call in server.metadata] == ["nightly", None]


@pytest.mark.parametrize("caller", ["x" * 65, "größe", "a\tb"])
def test_name_that_servers_refuse_is_refused(caller: str) -> None:
    """Before any call."""
    with pytest.raises(ValueError, match="at most 64 printable ASCII characters"):
        Client("localhost:1", caller=caller)


def test_unreachable_server_is_unavailable_and_not_ready() -> None:
    """No exception of gRPC's own comes out."""
    with Client("127.0.0.1:1", retries=False) as client:
        assert not client.is_ready(timeout_seconds=1)
        with pytest.raises(CallError) as caught:
            client.list_models()
    assert caught.value.code == "UNAVAILABLE"


def test_short_pushback_beats_the_backoff(server: FakeServer) -> None:
    """Three retries come when the server said, long before the back-off would let them."""
    server.refusals = [
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", pushback_milliseconds=30)
    ] * 3
    with Client(server.target) as client:
        assert client.generate("a")[0].text == "A"
    assert len(server.arrivals) == 4
    # The back-off would have been 0.1 + 0.2 + 0.4 s, less a fifth.
    assert 0.08 <= server.arrivals[-1] - server.arrivals[0] < 0.5


def test_timeout_of_zero_is_a_timeout(server: FakeServer) -> None:
    """Only None means the client's own deadline."""
    server.hold = threading.Event()
    with Client(server.target, timeout_seconds=30) as client:
        with pytest.raises(CallError, match="DEADLINE_EXCEEDED"):
            client.generate("a", timeout_seconds=0)
        with pytest.raises(CallError, match="DEADLINE_EXCEEDED"):
            list(client.generate_stream("a", timeout_seconds=0))


def test_clients_own_deadline_holds_for_streams(server: FakeServer) -> None:
    """It bounds the whole stream, which then has no result."""
    server.hold = threading.Event()
    with Client(server.target, timeout_seconds=0.1) as client:
        with pytest.raises(CallError) as caught, client.generate_stream("ab") as stream:
            list(stream)
        with pytest.raises(RuntimeError):
            _ = stream.result
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_server_says_whether_it_is_ready(server: FakeServer) -> None:
    """SERVING is ready; NOT_SERVING and a service it does not know are not."""
    serving, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )
    server.health.set("embedding", not_serving)
    with Client(server.target) as client:
        assert client.is_ready()
        assert not client.is_ready("embedding")
        assert not client.is_ready("unknown")
        server.health.set("embedding", serving)
        assert client.is_ready("embedding")
        # No call goes to a server that says of itself that it does not serve.
        server.health.set("", not_serving)
        assert not client.is_ready()
        assert not client.is_ready("embedding")
