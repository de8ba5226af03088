"""Calls over HTTP: what reaches the servicers, what comes back, and when."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from browser_call import PATIENCE_SECONDS, STREAM
from playground_setting import EMBED, MODELS, playing
from seqserve.playground.http_error import HTTP_CODES
from seqserve.playground.method import METHODS
from seqserve.v1 import model_pb2, model_pb2_grpc

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
async def test_every_status_has_its_http_code_and_its_message(code: grpc.StatusCode) -> None:
    """The JSON of the answer says what the call has ended with, and under which request id."""
    async with playing() as setting, setting.browse() as browser:
        setting.servicer.refusal = (code, "it is as it is: é")
        answer = await browser.call(MODELS, {}, x_request_id="mine")
    assert answer.code == HTTP_CODES[code]
    assert answer.error == {
        "code": HTTP_CODES[code],
        "status": code.name,
        "message": "it is as it is: é",
        "details": [],
    }
    assert answer.headers["x-request-id"] == "mine"


async def test_messages_of_a_stream_come_one_by_one_and_in_order() -> None:
    """Each is there before the next one is made."""
    async with playing() as setting, setting.browse() as browser:
        await browser.send(STREAM, {"input": {"text": "one two three"}})
        found = []
        for _ in range(3):
            setting.servicer.turns.release()
            found.append(await browser.line())
        rest = await browser.rest()
    assert [one["piece"]["text"] for one in found] == ["one", "two", "three"]
    assert rest == b""


async def test_stream_that_fails_later_ends_with_its_error() -> None:
    """The code of HTTP is gone by then; the last line says what happened."""
    async with playing() as setting, setting.browse() as browser:
        setting.servicer.refusal = (grpc.StatusCode.UNAVAILABLE, "the engine is lost")
        setting.servicer.turns.release()
        answer = await browser.call(STREAM, {"input": {"text": "one"}})
    assert answer.code == 200
    piece, last = answer.lines
    assert piece == {"piece": {"text": "one"}}
    assert last["error"]["status"] == "UNAVAILABLE"
    assert last["error"]["message"] == "the engine is lost"


async def test_stream_without_a_message_is_an_empty_answer() -> None:
    """Nothing to send is no error."""
    async with playing() as setting, setting.browse() as browser:
        answer = await browser.call(STREAM, {"input": {"text": ""}})
    assert (answer.code, answer.body) == (200, b"")


@pytest.mark.parametrize(("method", "message"), [(EMBED, {}), (STREAM, {"input": {"text": "a"}})])
async def test_browser_that_leaves_cancels_its_call(method: str, message: object) -> None:
    """The servicer hears of it at once, though it has nothing to write."""
    async with playing() as setting:
        async with setting.browse() as browser:
            await browser.send(method, message)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await setting.servicer.arrived.wait()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await setting.servicer.left.wait()


async def test_call_brings_the_token_the_request_id_and_the_address() -> None:
    """Metadata of the inner call: what a caller of gRPC would have sent itself."""
    async with playing() as setting, setting.browse() as browser:
        answer = await browser.call(
            MODELS, {}, authorization="Bearer secret", x_request_id="r-1", seqserve_caller="me"
        )
        metadata = setting.servicer.metadata
    assert answer.code == 200
    assert metadata["authorization"] == "Bearer secret"
    assert metadata["x-request-id"] == "r-1"
    assert metadata["seqserve-caller"] == "127.0.0.1"
    assert "cookie" not in metadata


async def test_callers_with_tokens_are_told_apart_by_those() -> None:
    """An address beside a token would be refused."""
    async with playing(has_tokens=True) as setting, setting.browse() as browser:
        await browser.call(MODELS, {}, authorization="Bearer secret")
        metadata = setting.servicer.metadata
    assert "seqserve-caller" not in metadata


async def test_request_id_that_cannot_be_is_replaced() -> None:
    """As on the gRPC port; the answer tells the new one."""
    async with playing() as setting, setting.browse() as browser:
        answer = await browser.call(MODELS, {}, x_request_id="a b")
        metadata = setting.servicer.metadata
    assert answer.headers["x-request-id"] == metadata["x-request-id"] != "a b"


async def test_token_that_cannot_be_sent_is_refused() -> None:
    """GRPC takes ASCII alone."""
    async with playing() as setting, setting.browse() as browser:
        answer = await browser.call(MODELS, {}, authorization="Bearer \u00e9")
    assert answer.status == (
        "400 INVALID_ARGUMENT: the header `authorization` must have printable ASCII characters "
        "alone"
    )


async def test_inner_port_is_closed_to_others() -> None:
    """Whoever finds it on this machine lacks the secret, and so does one who guesses."""
    async with playing() as setting:
        target = f"127.0.0.1:{setting.playground.inner_port}"
        async with grpc.aio.insecure_channel(target) as channel:
            stub = model_pb2_grpc.ModelServiceStub(channel)
            for metadata in ((), (("seqserve-playground-secret", "guess"),)):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.ListModels(model_pb2.ListModelsRequest(), metadata=metadata)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
                assert caught.value.details() == (
                    "this port is the server's own; call the gRPC port"
                )
        assert not setting.servicer.arrived.is_set()


async def test_answer_that_is_being_written_is_finished_at_the_stop() -> None:
    """Nobody is cut off for want of a moment."""
    async with playing() as setting, setting.browse() as browser:
        setting.servicer.turns.release()
        await browser.send(STREAM, {"input": {"text": "one two"}})
        first = await browser.line()
        stop = asyncio.create_task(setting.playground.stop(PATIENCE_SECONDS))
        await asyncio.sleep(0)
        setting.servicer.turns.release()
        rest = await browser.rest()
        await stop
    assert first["piece"]["text"] == "one"
    assert b"two" in rest


async def test_stop_waits_for_no_connection_without_a_request() -> None:
    """Browsers keep connections open for the next call."""
    async with playing() as setting, setting.browse() as browser:
        await browser.call(MODELS, {})
        async with asyncio.timeout(1.0):
            await setting.playground.stop(PATIENCE_SECONDS)
        assert await browser.reader.read() == b""


def test_no_method_changes_what_is_served() -> None:
    """What the page may call; additions are made on purpose."""
    assert sorted(METHODS) == [
        "/api/seqserve.v1.AttentionService/Attend",
        *(
            f"/api/seqserve.v1.EncodingService/{name}"
            for name in ("Classify", "ClassifyTokens", "Embed", "FillMask", "Rerank")
        ),
        "/api/seqserve.v1.GenerationService/GenerateStream",
        "/api/seqserve.v1.ModelService/ListModels",
    ]
