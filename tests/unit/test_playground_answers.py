"""Answers over HTTP: what writing them may take, of threads, memory and time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.protobuf.message import Message

import seqserve.playground.scribe as scribe_module
from browser_call import PATIENCE_SECONDS, STREAM, Browser
from playground_setting import EMBED, MODELS, playing
from seqserve.playground.message_json import write_message
from seqserve.v1 import model_pb2

LARGE = 30_000
"""Bytes of an answer that is written in a thread."""
MOST = 100_000
"""Bytes of answers, of which one large one is taken to need more until it is written."""


def name_models(num_bytes: int) -> model_pb2.ListModelsResponse:
    """An answer of about so many bytes, in JSON as well."""
    response = model_pb2.ListModelsResponse()
    response.models.add().name = "a" * num_bytes
    return response


class Gate:
    """Where large answers wait to be written."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.arrived = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._num_inside = 0
        self.num_most = 0
        """That have been here at the same time."""

    def write(self, message: Message) -> bytes:
        """Writes a message once it may; a small one, on the event loop, at once."""
        if threading.current_thread() is threading.main_thread():
            return write_message(message)
        with self._lock:
            self._num_inside += 1
            self.num_most = max(self.num_most, self._num_inside)
        self.arrived.release()
        assert self.open.wait(PATIENCE_SECONDS)
        with self._lock:
            self._num_inside -= 1
        return write_message(message)

    async def arrival(self) -> None:
        """Waits until one more is here."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.arrived.acquire(blocking=False):
                await asyncio.sleep(0.005)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Before what writes JSON."""
    gate = Gate()
    monkeypatch.setattr(scribe_module, "write_message", gate.write)
    return gate


@contextlib.asynccontextmanager
async def busy_threads() -> AsyncIterator[None]:
    """All threads of asyncio are taken, as by the texts of many calls."""
    end = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(pool)
        work = loop.run_in_executor(None, end.wait, 2 * PATIENCE_SECONDS)
        try:
            yield
        finally:
            end.set()
            await work


@contextlib.asynccontextmanager
async def idling(port: int) -> AsyncIterator[Browser]:
    """A browser for which its system keeps next to nothing."""
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=plain, limit=4096)
        try:
            yield Browser(reader, writer, f"127.0.0.1:{port}")
        finally:
            writer.transport.abort()


async def test_bodies_and_answers_have_threads_of_their_own() -> None:
    """They wait for nobody's text, and so no text waits for them."""
    async with playing() as setting, setting.browse() as browser, busy_threads():
        setting.servicer.turns.release()
        text = "a" * LARGE
        answer = await browser.call(STREAM, {"input": {"text": text}})
    assert [one["piece"]["text"] for one in answer.lines] == [text]


async def test_few_answers_are_written_at_the_same_time(gate: Gate) -> None:
    """They take the lock of the interpreter in turns with the event loop."""
    async with playing() as setting, contextlib.AsyncExitStack() as stack:
        setting.servicer.models = name_models(LARGE)
        browsers = [await stack.enter_async_context(setting.browse()) for _ in range(8)]
        answers = [asyncio.create_task(browser.call(MODELS, {})) for browser in browsers]
        await gate.arrival()
        await gate.arrival()
        async with setting.browse() as another:
            assert (await another.get()).code == 200
        gate.open.set()
        codes = [answer.code for answer in await asyncio.gather(*answers)]
    assert codes == [200] * 8
    assert gate.num_most == 2


async def test_answers_are_bounded_in_all(gate: Gate) -> None:
    """One beyond it is refused like a body; what has been sent makes room for the next."""
    settings: dict[str, Any] = {"max_message_bytes": 1024, "max_outstanding_bytes": MOST}
    async with (
        playing(**settings) as setting,
        setting.browse() as one,
        setting.browse() as other,
    ):
        setting.servicer.models = name_models(LARGE)
        first = asyncio.create_task(one.call(MODELS, {}))
        await gate.arrival()
        refused = await other.call(MODELS, {})
        gate.open.set()
        answers = [await first, await other.call(MODELS, {}), await one.call(MODELS, {})]
    assert refused.status == (
        f"429 RESOURCE_EXHAUSTED: {MOST} bytes of answers are being worked on and {MOST} more "
        f"would exceed the limit of {MOST}; try again later"
    )
    kinds = [detail["@type"].rpartition(".")[2] for detail in refused.error["details"]]
    assert kinds == ["ErrorInfo", "RetryInfo"]
    names = [json.loads(answer.body)["models"][0]["name"] for answer in answers]
    assert names == ["a" * LARGE] * 3


async def test_stream_that_cannot_be_written_ends_with_the_refusal(gate: Gate) -> None:
    """Its code of HTTP has been sent; small messages go on beside large ones."""
    settings: dict[str, Any] = {"max_message_bytes": MOST, "max_outstanding_bytes": MOST}
    async with (
        playing(**settings) as setting,
        setting.browse() as one,
        setting.browse() as other,
    ):
        setting.servicer.models = name_models(LARGE)
        first = asyncio.create_task(one.call(MODELS, {}))
        await gate.arrival()
        for _ in range(2):
            setting.servicer.turns.release()
        refused = await other.call(STREAM, {"input": {"text": f"small {'a' * LARGE}"}})
        gate.open.set()
        assert (await first).code == 200
    assert refused.code == 200
    piece, last = refused.lines
    assert piece == {"piece": {"text": "small"}}
    assert last["error"]["status"] == "RESOURCE_EXHAUSTED"


async def test_answer_that_takes_too_long_is_an_error() -> None:
    """Whatever of it takes the time: nobody waits for ever, and the call is cancelled."""
    async with playing(max_request_seconds=0.1) as setting, setting.browse() as browser:
        answer = await browser.call(EMBED, {})
        async with asyncio.timeout(PATIENCE_SECONDS):
            await setting.servicer.left.wait()
    assert answer.status == (
        "504 DEADLINE_EXCEEDED: the server's limit of 0.1 seconds (max_request_seconds) passed "
        "before the answer was written; ask for less, or generate with `max_time` below it"
    )


async def test_answer_that_is_read_too_slowly_is_cut_off() -> None:
    """Each piece of it is taken in time, but all of them would take minutes."""
    num_bytes, num_read = 32_000_000, 0
    async with playing(max_request_seconds=0.1) as setting, idling(setting.port) as browser:
        setting.servicer.models = name_models(num_bytes)
        await browser.send(MODELS, {})
        slow_until = time.monotonic() + 3.0
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while data := await browser.reader.read(4096):
                    num_read += len(data)
                    if time.monotonic() < slow_until:
                        await asyncio.sleep(0.01)
    assert 0 < num_read < num_bytes
