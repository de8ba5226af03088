"""Bodies that come to the HTTP port: what is read of them, for how long, and what they hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

import seqserve.playground.connection as connection_module
from browser_call import PATIENCE_SECONDS, STREAM
from playground_setting import EMBED, MODELS, playing


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is no EmbedRequest in JSON: Failed to load JSON: "),
        (b"[]", "the body is no EmbedRequest in JSON: it must be an object"),
        (b"", "the body is no EmbedRequest in JSON: it must be an object"),
        (b'{"inputs": 3}', "the body is no EmbedRequest in JSON: Failed to parse inputs field: "),
        (b'{"input": ["a"]}', 'no field named "input" at "EmbedRequest"'),
        (b'{"inputs": ["a"], "inputs": []}', "duplicate key inputs"),
        (
            b'{"inputs":' + b"[" * 20_000,
            "the body is no EmbedRequest in JSON: Failed to load JSON: ",
        ),
        (b'{"inputs": ["\xff"]}', "the body is not UTF-8: invalid start byte at byte 13"),
        (
            b'{"inputs": [' + b'"",' * 70_000 + b'""]}',
            "the body has more than 65536 values in all; send fewer inputs at once",
        ),
    ],
    ids=["broken", "list", "empty", "type", "field", "twice", "deep", "bytes", "many"],
)
async def test_body_that_is_no_request_is_told_why(body: bytes, message: str) -> None:
    """INVALID_ARGUMENT, in the words of what reads it, before anybody computes."""
    async with playing() as setting, setting.browse() as browser:
        answer = await browser.call(EMBED, body)
        assert not setting.servicer.arrived.is_set()
    assert (answer.code, answer.error["status"]) == (400, "INVALID_ARGUMENT")
    assert message in answer.error["message"]


async def test_long_text_with_many_commas_is_no_crowd_of_values() -> None:
    """What stands in strings is not counted."""
    async with playing() as setting, setting.browse() as browser:
        text = ',[{"\\' * 30_000
        setting.servicer.turns.release()
        answer = await browser.call(STREAM, {"input": {"text": text}})
    assert [one["piece"]["text"] for one in answer.lines] == [text]


async def test_body_beyond_the_limit_is_not_read() -> None:
    """The limit is that of messages on the gRPC port."""
    async with playing(max_message_bytes=1024) as setting, setting.browse() as browser:
        answer = await browser.call(MODELS, {"x": "a" * 2000})
    assert answer.status == (
        "413 RESOURCE_EXHAUSTED: the body has 2009 bytes, but may have 1024 (max_message_bytes)"
    )
    assert answer.headers["connection"] == "close"


async def test_bodies_are_bounded_in_all() -> None:
    """Those that are being worked on hold their bytes, as messages do."""
    settings: dict[str, Any] = {"max_message_bytes": 1024, "max_outstanding_bytes": 1024}
    async with playing(**settings) as setting, setting.browse() as one, setting.browse() as other:
        await one.send(EMBED, {"inputs": ["a" * 900]})
        async with asyncio.timeout(PATIENCE_SECONDS):
            await setting.servicer.arrived.wait()
        answer = await other.call(MODELS, b"{" + b" " * 600 + b"}")
    assert answer.code == 429
    assert answer.error["message"] == (
        "916 bytes of bodies are being worked on and 602 more would exceed the limit of 1024; try "
        "again later"
    )
    assert [detail["@type"].rpartition(".")[2] for detail in answer.error["details"]] == [
        "ErrorInfo",
        "RetryInfo",
    ]


@pytest.mark.parametrize("length", ["", "2"])
async def test_body_of_unknown_length_is_refused(length: str) -> None:
    """Browsers know it. One in chunks may have any length, whatever else is said of it."""
    async with playing() as setting, setting.browse() as browser:
        headers = {"content_length": length, "transfer_encoding": "chunked"}
        answer = await browser.call(MODELS, {}, **headers)
        assert not setting.servicer.arrived.is_set()
    assert answer.status == (
        "411 INVALID_ARGUMENT: the header Content-Length must tell the length of the body, and no "
        "Transfer-Encoding may be beside it"
    )
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(("seconds", "pause_seconds"), [(0.1, 60.0), (60.0, 0.1)])
async def test_body_that_does_not_come_is_not_waited_for(
    seconds: float, pause_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No longer than a call may take, and no longer than a few seconds without any of it."""
    monkeypatch.setattr(connection_module, "_PAUSE_SECONDS", pause_seconds)
    async with playing(max_request_seconds=seconds) as setting, setting.browse() as browser:
        head = f"POST /api/{MODELS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
        browser.writer.write(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            data = await browser.reader.read()
    assert data.startswith(b"HTTP/1.1 408 ")
    assert json.loads(data.partition(b"\r\n\r\n")[2])["error"]["message"] == (
        f"the body has not come within {seconds:g} seconds, or has paused for {pause_seconds:g} "
        "(1 of 9 bytes have)"
    )


async def test_bodies_that_do_not_come_take_no_places() -> None:
    """Announcing them is free, and so keeps nobody out."""
    settings: dict[str, Any] = {"max_message_bytes": 1024, "max_outstanding_bytes": 1024}
    async with playing(**settings) as setting, contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            silent = await stack.enter_async_context(setting.browse())
            headers = {"host": "localhost", "content-type": "application/json"}
            await silent.announce(f"/api/{MODELS}", headers | {"content-length": "1024"})
        browser = await stack.enter_async_context(setting.browse())
        answers = [await browser.call(MODELS, b"{" + b" " * 900 + b"}") for _ in range(2)]
    assert [answer.code for answer in answers] == [200, 200]


async def test_body_is_refused_as_soon_as_it_is_too_much() -> None:
    """What has come of it until then makes room for others."""
    settings: dict[str, Any] = {"max_message_bytes": 1024, "max_outstanding_bytes": 1024}
    async with playing(**settings) as setting, setting.browse() as one, setting.browse() as other:
        await one.send(EMBED, {"inputs": ["a" * 900]})
        async with asyncio.timeout(PATIENCE_SECONDS):
            await setting.servicer.arrived.wait()
        headers = {"host": "localhost", "content-type": "application/json"}
        await other.announce(f"/api/{MODELS}", headers | {"content-length": "1024"})
        other.writer.write(b" " * 60)
        await asyncio.sleep(0.05)
        other.writer.write(b" " * 600)
        answer = await other.receive()
        async with setting.browse() as third:
            assert (await third.call(MODELS, b"{" + b" " * 60 + b"}")).code == 200
    assert answer.code == 429
    assert answer.headers["connection"] == "close"
