"""Every call has an id: in its reply, whatever it is, and on the lines of the log about it."""

from typing import Any

import grpc
import pytest
import structlog

from seqserve.batch import Batch, Outcome
from seqserve.client import AsyncClient, CallError
from seqserve.errors import NonFiniteError
from seqserve.tokenizer import Tokenizer
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from serving import MakeServer, source

KEY = "x-request-id"
CANARY = "canary words"


def kept(logs: list[Any], event: str) -> list[Any]:
    """The lines of one kind."""
    return [entry for entry in logs if entry["event"] == event]


def capture() -> Any:
    """Captures log lines with what belongs to the running task."""
    return structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars])


async def test_every_reply_has_the_id_that_came(serving: MakeServer) -> None:
    """Answers, refusals, and streams; and the access line of each has it."""
    stream_request = generation_pb2.GenerateStreamRequest(model_name="tiny", input=source([5]))
    refused = generation_pb2.GenerateRequest(model_name="nobody", inputs=[source([5])])
    with capture() as logs:
        async with serving() as running:
            garbled: Any = running.channel.unary_unary("/seqserve.v1.EncodingService/Embed")
            calls: list[Any] = [
                lambda given: running.model.ListModels(
                    model_pb2.ListModelsRequest(), metadata=given
                ),
                lambda given: running.generation.GenerateStream(stream_request, metadata=given),
                lambda given: running.generation.Generate(refused, metadata=given),
                lambda given: garbled(b"\xff\xff", metadata=given),
                lambda given: running.encoding.EmbedStream(iter([]), metadata=given),
            ]
            for index, make in enumerate(calls):
                call = make(((KEY, f"id-{index}"),))
                if hasattr(call, "read"):  # the status lies behind the messages
                    async for _ in call:
                        pass
                await call.code()
                assert dict(await call.trailing_metadata())[KEY] == f"id-{index}"
            call = running.model.ListModels(model_pb2.ListModelsRequest())
            made = dict(await call.trailing_metadata())[KEY]
    lines = kept(logs, "call")
    assert [line["request_id"] for line in lines] == [*(f"id-{i}" for i in range(5)), made]
    assert [line["code"] for line in lines] == [
        *("OK", "OK", "NOT_FOUND", "INVALID_ARGUMENT", "OK", "OK")
    ]
    assert [line["model"] for line in lines] == ["", "tiny/1", "", "", "", ""]
    assert lines[2]["reason"] == "model_not_found"


async def test_fault_is_logged_once_with_the_id_and_without_the_text(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback is there for who was told INTERNAL; the caller's client names the id."""

    def fail(*arguments: Any, **settings: Any) -> None:
        raise RuntimeError("planted")

    with capture() as logs:
        async with serving() as running:
            monkeypatch.setattr(Tokenizer, "encode_all", fail)
            async with AsyncClient(f"127.0.0.1:{running.ports.grpc}") as client:
                with pytest.raises(CallError) as caught:
                    await client.embed([CANARY], model="sentence")
    (fault,), (line,) = kept(logs, "call failed"), kept(logs, "call")
    assert str(fault["exc_info"]) == "planted"
    assert fault["request_id"] == line["request_id"] == caught.value.request_id
    assert (line["code"], line["reason"], line["model"]) == ("INTERNAL", "unexpected", "sentence/1")
    assert str(caught.value) == (
        "INTERNAL: internal error; the server's log has the details under this request id "
        f"(request id {caught.value.request_id})"
    )
    assert CANARY not in repr(logs)


async def test_fault_of_the_engine_names_the_calls_in_its_batch(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker works for many calls at once; its lines have their ids."""

    def fail(*arguments: Any) -> None:
        raise RuntimeError("planted")

    with capture() as logs:
        async with serving() as running:
            engine = running.registry.find("sentence", "", None).lanes.workers[0]._engine
            monkeypatch.setattr(engine, "run", fail)
            with pytest.raises(grpc.aio.AioRpcError):
                await running.encoding.Embed(
                    encoding_pb2.EmbedRequest(inputs=["a", "b"]), metadata=((KEY, "id-1"),)
                )
    (fault,) = kept(logs, "batch failed")
    assert fault["request_ids"] == ["id-1"]
    assert kept(logs, "call failed") == []
    assert [line["reason"] for line in kept(logs, "call")] == ["engine"]


async def test_numbers_that_are_none_are_told_apart(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that comes to NaN is counted and logged as that, with the call it was for."""
    with capture() as logs:
        async with serving() as running:
            engine = running.registry.find("sentence", "", None).lanes.workers[0]._engine
            whole = engine.run

            def spoil(batch: Batch, *options: object) -> list[Outcome]:
                whole(batch)
                return [NonFiniteError("the model returned a vector that is not finite")]

            monkeypatch.setattr(engine, "run", spoil)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.encoding.Embed(
                    encoding_pb2.EmbedRequest(inputs=["a"]), metadata=((KEY, "id-1"),)
                )
    (fault,) = kept(logs, "sequence failed")
    assert fault["request_id"] == "id-1"
    assert fault["error"] == "the model returned a vector that is not finite"
    assert [line["reason"] for line in kept(logs, "call")] == ["non_finite"]
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "finite" not in str(caught.value.details())


async def test_requests_of_a_stream_have_ids_of_their_own(serving: MakeServer) -> None:
    """That of the stream with their place in it: in their errors, too."""
    items = [
        encoding_pb2.EmbedStreamRequest(request=encoding_pb2.EmbedRequest(inputs=inputs))
        for inputs in (["a"], [], ["b"], [])
    ]
    async with serving() as running:
        stream = running.encoding.EmbedStream(iter(items), metadata=((KEY, "id-1"),))
        answers = [answer async for answer in stream]
        line_model = running.metrics.registry.get_sample_value(
            "seqserve_requests_total",
            {
                "method": "/seqserve.v1.EncodingService/EmbedStream",
                "model_name": "sentence",
                "model_version": "1",
                "code": "OK",
                "reason": "",
            },
        )
    infos = [answer.error.details[0].value for answer in answers if answer.HasField("error")]
    assert [b"id-1.2" in info for info in infos] == [True, False]
    assert [b"id-1.4" in info for info in infos] == [False, True]
    assert line_model == 1
