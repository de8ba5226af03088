"""The end of the HTTP port: who is answered before it, and who is not waited for."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import seqserve.playground.listener as listener_module
from browser_call import PATIENCE_SECONDS, STREAM
from certificates import Authority
from playground_setting import EMBED, MODELS, playing

DRAIN_SECONDS = 3 * PATIENCE_SECONDS
"""Longer than any test waits: what ends before has not waited for it."""


async def test_answer_is_waited_for_as_long_as_the_drain_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not only for a moment: what was accepted is answered to its last byte."""
    monkeypatch.setattr(listener_module, "_END_SECONDS", 0.05)
    async with playing() as setting, setting.browse() as browser:
        setting.servicer.turns.release()
        await browser.send(STREAM, {"input": {"text": "one two"}})
        await browser.line()
        stop = asyncio.create_task(setting.playground.stop(DRAIN_SECONDS))
        await asyncio.sleep(0.5)
        setting.servicer.turns.release()
        assert b"two" in await browser.rest()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await stop


async def test_end_of_the_drain_cuts_off_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the log, with the number of those without an answer."""
    monkeypatch.setattr(listener_module, "_END_SECONDS", 0.05)
    async with playing() as setting, setting.browse() as browser, setting.browse() as idle:
        assert (await idle.get()).code == 200
        await browser.send(EMBED, {})
        async with asyncio.timeout(PATIENCE_SECONDS):
            await setting.servicer.arrived.wait()
            with capture_logs() as logs:
                await setting.playground.stop(0.0)
            await setting.servicer.left.wait()
    assert [(one["event"], one["unanswered"]) for one in logs] == [
        ("playground's drain ran out of time", 1)
    ]


async def test_request_whose_body_is_on_its_way_is_sent_elsewhere() -> None:
    """At once: a body that never comes would hold the stop up."""
    async with playing() as setting, setting.browse() as browser:
        head = f"POST /api/{MODELS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
        browser.writer.write(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
        await asyncio.sleep(0.2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await setting.playground.stop(DRAIN_SECONDS)
            data = await browser.reader.read()
    assert data.startswith(b"HTTP/1.1 503 ")
    assert b"the server is shutting down; try another replica" in data


async def test_handshake_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody has asked for anything yet."""
    certificate, key = Authority("servers").issue().write(tmp_path)
    async with (
        playing(tls_certificate=certificate, tls_key=key, handshake_seconds=3600) as setting,
        setting.browse() as browser,
    ):
        await asyncio.sleep(0.2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await setting.playground.stop(DRAIN_SECONDS)
        with contextlib.suppress(ConnectionError):
            assert await browser.reader.read() == b""
