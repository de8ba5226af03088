"""ModelStreamInfer: order, pieces, errors of single requests, the end."""

import asyncio
from typing import Any

import grpc
import pytest

from inference_messages import (
    Parameter,
    outputs,
    refusal,
    request,
    stub,
    texts,
)
from seqserve.inference_protocol.v2 import open_inference_pb2 as messages
from seqserve.inference_protocol.v2 import open_inference_pb2_grpc
from serving import MakeServer, status_of

PATIENCE_SECONDS = 20.0
METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
STATES = ("last_hidden_state",)


async def test_stream_answers_encoders_in_order_and_marks_errors(serving: MakeServer) -> None:
    """More requests than are answered at a time; malformed bytes are an error of their own."""
    good = [request("sentence", texts(*["a b"] * (1 + n % 3)), id=str(n)) for n in range(40)]
    async with serving() as running:
        call: Any = running.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=bytes,
            response_deserializer=messages.ModelStreamInferResponse.FromString,
        )
        data = [one.SerializeToString() for one in good]
        responses = [one async for one in call(iter([*data[:20], b"\xff\xff", *data[20:]]))]
        assert running.num_outstanding == 0
    assert responses.pop(20).error_message == "the request's bytes are not a message of its type"
    assert [one.infer_response.id for one in responses] == [str(n) for n in range(40)]
    assert [one.infer_response.outputs[0].shape[0] for one in responses] == [
        1 + n % 3 for n in range(40)
    ]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            request("tiny", texts("a", "b")),
            "a request of a stream must have one input, but has 2; send one request for each, or "
            "call ModelInfer",
        ),
        (
            request(
                "tiny",
                texts("a"),
                parameters={
                    "num_return_sequences": Parameter(int64_param=2),
                    "num_beams": Parameter(int64_param=2),
                },
            ),
            "`num_return_sequences` must be 1 in a stream, but is 2; call ModelInfer for several",
        ),
        (
            request("tiny", texts("a " * 90)),
            "`text` must have at most 40 tokens, but has 91; shorten it, or set `truncate` to have "
            "its end cut",
        ),
    ],
)
async def test_stream_refuses_what_has_no_pieces(
    message: messages.ModelInferRequest, expected: str, serving: MakeServer
) -> None:
    """The error is the last response of its request, and carries its id."""
    message.id = "m"
    async with serving() as running:
        (response,) = [one async for one in stub(running).ModelStreamInfer(iter([message]))]
    assert response.error_message == expected
    assert response.infer_response.id == "m"
    assert response.infer_response.parameters["triton_final_response"].bool_param


async def test_stream_returns_the_outputs_that_are_asked_for(serving: MakeServer) -> None:
    """Token ids with the pieces, the score at the end."""
    names = outputs("token_ids", "score")
    message = request(
        "tiny",
        texts("a b c"),
        outputs=names,
        parameters={"triton_enable_empty_final_response": Parameter(bool_param=True)},
    )
    async with serving() as running:
        responses = [one async for one in stub(running).ModelStreamInfer(iter([message]))]
        whole = await stub(running).ModelInfer(request("tiny", texts("a b c"), outputs=names))
    *pieces, last = [one.infer_response for one in responses]
    assert all([one.name for one in piece.outputs] == ["token_ids"] for piece in pieces)
    token_ids = [token for piece in pieces for token in piece.outputs[0].contents.int64_contents]
    assert token_ids == list(whole.outputs[0].contents.int64_contents)
    assert [one.name for one in last.outputs] == ["token_ids", "score"]
    assert last.outputs[1] == whole.outputs[1]


async def test_unexpected_errors_of_a_stream_leak_nothing(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is told without its text, and the stream goes on."""
    async with serving() as running:

        def explode(*args: object, **kwargs: object) -> None:
            raise RuntimeError("secret path")

        monkeypatch.setattr(running.registry.find("sentence", "", None).lanes, "submit", explode)
        requests = [request("sentence", texts("a")), request("tiny", texts("a"))]
        responses = [one async for one in stub(running).ModelStreamInfer(iter(requests))]
    errors = [one.error_message for one in responses if one.error_message]
    assert errors == ["internal error; the server's log has the details under this request id"]
    assert responses[-1].infer_response.parameters["triton_final_response"].bool_param


async def test_stream_that_is_left_gives_its_places_back(serving: MakeServer) -> None:
    """Nobody waits for its responses any more."""
    async with serving() as running:
        stream = stub(running).ModelStreamInfer(
            iter([request("long", texts("a b c d " * 20))] * 30)
        )
        await stream.read()
        stream.cancel()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding:
                await asyncio.sleep(0)


async def test_shutdown_ends_streams_and_says_not_ready(serving: MakeServer) -> None:
    """Probes are answered while calls are finished; others are sent elsewhere."""
    async with serving(drain_seconds=PATIENCE_SECONDS) as running:
        inference = stub(running)
        stream = inference.ModelStreamInfer()
        await stream.write(request("sentence", texts("a")))
        assert (await stream.read()).infer_response.outputs
        with running.registry.find("tiny", "", None).admission.admit(1):
            running.server._calls._draining.set()
            running.server._announce(2)
            assert (await inference.ServerLive(messages.ServerLiveRequest())).live
            assert not (await inference.ServerReady(messages.ServerReadyRequest())).ready
            model = messages.ModelReadyRequest(name="tiny")
            assert not (await inference.ModelReady(model)).ready
            assert (await refusal(running, request("tiny", texts("a")))).startswith("UNAVAILABLE")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_timeout_is_of_its_request_alone(serving: MakeServer) -> None:
    """A request of a stream that comes too late is an error, whatever it is; others are not."""
    late = {"timeout": Parameter(int64_param=1)}
    requests = [
        request("tiny", texts("a b"), id="1", parameters=late),
        request("sentence", texts("a b"), id="2", parameters=late),
        request("sentence", texts("a b"), id="3"),
    ]
    async with serving() as running:
        responses = [one async for one in stub(running).ModelStreamInfer(iter(requests))]
    errors = {one.infer_response.id: one.error_message for one in responses}
    assert errors == {
        "1": "the deadline passed before the whole stream was generated and read; allow more time, "
        "or ask for less",
        "2": "the deadline passed before the work was done; allow more time, or ask for less",
        "3": "",
    }


async def test_unread_stream_ends_and_holds_nothing(serving: MakeServer) -> None:
    """Who does not read is told so in the end."""
    options = [("grpc.http2.lookahead_bytes", 0), ("grpc.http2.bdp_probe", 0)]
    async with (
        serving(max_request_seconds=0.5) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.grpc}", options) as channel,
    ):
        inference: Any = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        message = request("sentence", texts(*["a b c " * 8] * 100), outputs=outputs(*STATES))
        stream = inference.ModelStreamInfer(iter([message] * 20))
        await stream.initial_metadata()
        in_flight = running.metrics.requests_in_flight.labels(method=METHOD)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while in_flight._value.get():
                await asyncio.sleep(0.01)
        assert running.num_outstanding == 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [response async for response in stream]
    assert status_of(caught.value) == (
        "DEADLINE_EXCEEDED: an answer of the stream was not read within 0.5 seconds "
        "(max_request_seconds)"
    )
