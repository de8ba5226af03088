"""The playground over real models: calls over HTTP are those of the gRPC port."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

import seqserve.playground.listener as listener_module
import seqserve.playground.scribe as scribe_module
from bearer_metadata import INFER
from browser_call import PATIENCE_SECONDS, STREAM, Browser
from browser_call import browsing as browsing_port
from held_engine import HeldEngine
from playground_setting import MODELS
from seqserve.__main__ import _ready_line
from seqserve.config import ServerConfig
from seqserve.playground.message_json import write_message
from seqserve.v1 import generation_pb2, model_pb2
from serving import MakeServer, RunningServer

EMBED = "seqserve.v1.EncodingService/Embed"
SOURCE = {"tokenIds": {"values": [5, 6, 7, 1]}}


def streaming(**options: object) -> dict[str, object]:
    """A request to generate from one source."""
    return {"modelName": "tiny", "input": SOURCE, "options": options}


async def settle(running: RunningServer) -> None:
    """Waits until nothing is left of any call."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while running.num_in_flight or running.num_outstanding:
            await asyncio.sleep(0.005)


async def test_answers_are_those_of_the_grpc_port(serving: MakeServer) -> None:
    """Models and streams, to the last bit."""
    async with serving(playground=True, playground_port=0) as running:
        async with browsing_port(running.ports.playground) as browser:
            models = await browser.call(MODELS, {})
            stream = await browser.call(STREAM, streaming(maxNewTokens=6))
        expected_models = await running.model.ListModels(model_pb2.ListModelsRequest())
        request = json_format.ParseDict(
            streaming(maxNewTokens=6), generation_pb2.GenerateStreamRequest()
        )
        expected_stream = [one async for one in running.generation.GenerateStream(request)]
    assert json.loads(models.body) == json_format.MessageToDict(expected_models)
    found = [
        json_format.ParseDict(line, generation_pb2.GenerateStreamResponse())
        for line in stream.lines
    ]
    for message in (found[-1], expected_stream[-1]):
        message.result.ClearField("timing")
    assert found == expected_stream


async def test_tokens_are_asked_for_as_on_the_grpc_port(
    serving: MakeServer, token_file: Path
) -> None:
    """The page is for everybody; its calls are for those with a token."""
    async with (
        serving(playground=True, playground_port=0, token_file=token_file) as running,
        browsing_port(running.ports.playground) as browser,
    ):
        page = await browser.get()
        without = await browser.call(MODELS, {})
        unknown = await browser.call(MODELS, {}, authorization="Bearer nobody-knows-this")
        known = await browser.call(MODELS, {}, authorization=f"Bearer {INFER}")
        urgent = {"modelName": "tiny", "input": SOURCE, "priority": "PRIORITY_HIGH"}
        beyond = await browser.call(STREAM, urgent, authorization=f"Bearer {INFER}")
    assert (page.code, known.code) == (200, 200)
    assert without.status == (
        "401 UNAUTHENTICATED: this server wants a token: send the metadata key `authorization` "
        "once, with `Bearer TOKEN`"
    )
    assert unknown.status == (
        "401 UNAUTHENTICATED: the token that was sent is not one of this server's"
    )
    assert (beyond.code, beyond.error["status"]) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (
            streaming(numBeams=99),
            400,
        ),
        (
            {"modelName": "nobody", "input": SOURCE},
            404,
        ),
    ],
    ids=["option", "model"],
)
async def test_refusals_have_the_servers_words(
    serving: MakeServer, message: dict[str, object], code: int
) -> None:
    """And the field that is wrong, as on the gRPC port."""
    async with (
        serving(playground=True, playground_port=0) as running,
        browsing_port(running.ports.playground) as browser,
    ):
        answer = await browser.call(STREAM, message)
        request = json_format.ParseDict(message, generation_pb2.GenerateStreamRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.GenerateStream(request).read()
    assert answer.error["message"] == caught.value.details()
    assert answer.error["status"] == caught.value.code().name
    assert answer.code == code


async def test_limits_are_those_of_the_grpc_port(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places, and time; a refusal says when to come back."""
    settings = {"max_outstanding": 1, "max_inputs_per_request": 1, "max_request_seconds": 0.5}
    async with serving(playground=True, playground_port=0, **settings) as running:
        engine = HeldEngine(running, "tiny", monkeypatch)
        port = running.ports.playground
        async with browsing_port(port) as browser, browsing_port(port) as other:
            await browser.send(STREAM, streaming(maxNewTokens=2))
            await engine.arrival()
            full = await other.call(STREAM, streaming(maxNewTokens=2))
            late = await browser.receive()
        engine.open()
        await settle(running)
    assert (full.code, full.error["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert any(one["@type"].endswith(".RetryInfo") for one in full.error["details"])
    assert (late.code, late.error["status"]) == (504, "DEADLINE_EXCEEDED")


async def leave_while_generating(running: RunningServer, engine: HeldEngine) -> None:
    """Asks for a long target and closes the page after its first token."""
    async with browsing_port(running.ports.playground) as browser:
        await browser.send(STREAM, streaming(maxNewTokens=20, minNewTokens=20))
        engine.step(2)
        assert "piece" in await browser.line()


async def test_page_that_is_closed_frees_its_row(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine computes nothing further for it; the call counts as cancelled."""
    async with serving(playground=True, playground_port=0) as running:
        engine = HeldEngine(running, "tiny", monkeypatch)
        await leave_while_generating(running, engine)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not running.count_calls("CANCELLED"):
                await asyncio.sleep(0.005)
        engine.open()
        await settle(running)
        labels = {"model_name": "tiny", "model_version": "1"}
        states = {"reason": "cancelled", "state": "running"}
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not running.metrics.registry.get_sample_value(
                "seqserve_dropped_sequences_total", labels | states
            ):
                await asyncio.sleep(0.005)
    # One to encode, one for the first token, and at most those that were under way.
    assert len(engine.batches) <= 4


async def test_stop_answers_what_has_begun(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of the page count among those that a server waits for."""
    async with serving(playground=True, playground_port=0) as running:
        engine = HeldEngine(running, "tiny", monkeypatch)
        async with browsing_port(running.ports.playground) as browser:
            await browser.send(STREAM, streaming(maxNewTokens=3, minNewTokens=2))
            await engine.arrival()
            stop = asyncio.create_task(running.server.stop())
            await asyncio.sleep(0)
            engine.open()
            answer = await browser.receive()
            await stop
    assert answer.code == 200
    assert "result" in answer.lines[-1]


async def test_stop_waits_for_answers_that_are_being_written(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their calls are done by then, and a moment is too short for megabytes of JSON."""
    is_open = threading.Event()

    def write(message: Message) -> bytes:
        assert is_open.wait(PATIENCE_SECONDS)
        return write_message(message)

    monkeypatch.setattr(listener_module, "_END_SECONDS", 0.05)
    monkeypatch.setattr(scribe_module, "INLINE_CHARACTERS", 0)
    monkeypatch.setattr(scribe_module, "write_message", write)
    async with (
        serving(playground=True, playground_port=0) as running,
        browsing_port(running.ports.playground) as browser,
    ):
        answer = asyncio.create_task(browser.call(MODELS, {}))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not running.count_calls("OK", f"/{MODELS}"):
                await asyncio.sleep(0.005)
        stop = asyncio.create_task(running.server.stop())
        await asyncio.sleep(1.0)
        is_open.set()
        assert (await answer).code == 200
        await stop


async def embed(browser: Browser) -> int:
    """The code of a call with one text."""
    return (await browser.call(EMBED, {"modelName": "sentence", "inputs": ["a cat"]})).code


async def test_calls_are_counted_like_all(serving: MakeServer) -> None:
    """Under the name of the method; nothing tells where they came from."""
    async with serving(playground=True, playground_port=0) as running:
        async with browsing_port(running.ports.playground) as browser:
            assert await embed(browser) == 200
        assert running.count_calls("OK", f"/{EMBED}") == 1


async def test_there_is_no_playground_unless_it_is_asked_for(serving: MakeServer) -> None:
    """Off by default: no port is open."""
    async with serving() as running:
        assert running.ports.playground is None


async def test_start_says_where_the_page_is(serving: MakeServer) -> None:
    """As an address to open, with the scheme that the certificate makes it."""
    async with serving(playground=True, playground_port=0) as running:
        ports, registry = running.ports, running.registry
        plain = _ready_line(ServerConfig(), registry, ports)
        tls = ServerConfig(host="::", tls_certificate=Path("a.crt"), tls_key=Path("a.key"))
        encrypted = _ready_line(tls, registry, ports)
        off = _ready_line(ServerConfig(), registry, dataclasses.replace(ports, playground=None))
    assert f" playground=http://127.0.0.1:{ports.playground}/ models=" in plain
    assert f" playground=https://[::]:{ports.playground}/ models=" in encrypted
    assert "playground" not in off
