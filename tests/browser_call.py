"""Calls of the playground's page, made by a plain HTTP client over its port."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import h11

PATIENCE_SECONDS = 20.0
STREAM = "seqserve.v1.GenerationService/GenerateStream"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error in the body."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error

    @property
    def status(self) -> str:
        """The error in one line."""
        return f"{self.code} {self.error['status']}: {self.error['message']}"

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The messages of a stream."""
        return [json.loads(line) for line in self.body.splitlines()]


class Browser:
    """One connection, and what a browser would say over it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str):
        self.reader = reader
        self.writer = writer
        self._host = host
        self._http = h11.Connection(h11.CLIENT)

    async def call(self, method: str, message: object, **headers: str) -> Answer:
        """Makes a call and reads all of its answer."""
        await self.send(method, message, **headers)
        return await self.receive()

    async def send(self, method: str, message: object, **headers: str) -> None:
        """Sends a call; names of headers have underscores for dashes."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        given = {
            "host": self._host,
            "origin": f"http://{self._host}",
            "content-type": "application/json",
            "content-length": str(len(body)),
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        await self.request("POST", f"/api/{method}", given, body)

    async def get(self, path: str = "/", verb: str = "GET", **headers: str) -> Answer:
        """Asks for a page."""
        await self.request(verb, path, {"host": self._host} | headers)
        return await self.receive()

    async def request(
        self, verb: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> None:
        """Sends a request; headers that are empty are left out."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        pairs = [
            (name.encode(), value.encode("latin-1")) for name, value in headers.items() if value
        ]
        for event in (
            h11.Request(method=verb, target=path, headers=pairs),
            *([h11.Data(data=body)] if body else []),
            h11.EndOfMessage(),
        ):
            self.writer.write(self._http.send(event) or b"")
        await self.writer.drain()

    async def announce(self, path: str, headers: dict[str, str]) -> None:
        """Sends the head of a request alone."""
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        head = h11.Request(method="POST", target=path, headers=pairs)
        self.writer.write(self._http.send(head) or b"")
        await self.writer.drain()

    async def receive(self) -> Answer:
        """Reads an answer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            response = await self.event()
        assert isinstance(response, h11.Response)
        body = await self.rest()
        headers = {key.decode(): value.decode() for key, value in response.headers}
        return Answer(response.status_code, headers, body)

    async def line(self) -> dict[str, Any]:
        """The next message of a stream, which comes in a piece of its own."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            event = await self.event()
            if isinstance(event, h11.Response):
                assert event.status_code == 200
                event = await self.event()
            assert isinstance(event, h11.Data)
        message: dict[str, Any] = json.loads(event.data)
        return message

    async def rest(self) -> bytes:
        """What is left of an answer."""
        body = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while isinstance(event := await self.event(), h11.Data):
                body += event.data
        assert isinstance(event, h11.EndOfMessage)
        return body

    async def event(self) -> Any:
        """The next event of an answer."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = await self.reader.read(65536)
            if not data:
                raise ConnectionResetError("the server has closed the connection")
            self._http.receive_data(data)
        return event


@contextlib.asynccontextmanager
async def browsing(
    port: int | None, context: ssl.SSLContext | None = None
) -> AsyncIterator[Browser]:
    """A connection to the playground's port."""
    assert port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        yield Browser(reader, writer, f"127.0.0.1:{port}")
    finally:
        writer.transport.abort()
