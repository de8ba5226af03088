"""HTTP/2 by hand, for what a well-behaved client never sends.

Source: RFC 9113 (frames) and RFC 7541 (header blocks, here of literals alone).
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD_BYTES = 9
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1


class Kind(enum.IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame."""

    kind: Kind
    flags: int = 0
    stream: int = 0
    payload: bytes = b""

    def encode(self) -> bytes:
        """Its bytes."""
        head = len(self.payload).to_bytes(3, "big") + bytes([self.kind, self.flags])
        return head + self.stream.to_bytes(4, "big") + self.payload


PING = Frame(Kind.PING, payload=b"01234567")


def call_headers(stream: int, path: str, **more: str) -> Frame:
    """The headers of a call whose message is still to come; underscores stand for hyphens."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    } | {name.replace("_", "-"): value for name, value in more.items()}
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields.items())
    return Frame(Kind.HEADERS, END_HEADERS, stream, block)


def _text(text: str) -> bytes:
    assert len(text) < 127, "longer texts have lengths of several bytes"
    return bytes([len(text)]) + text.encode()


class Http2Connection:
    """A connection that says what it is told; the preface comes by itself."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(PREFACE)
        self.send(Frame(Kind.SETTINGS))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def send(self, *frames: Frame) -> None:
        """Sends frames."""
        self._writer.write(b"".join(frame.encode() for frame in frames))

    async def receive(self, *kinds: Kind) -> Frame:
        """The next frame of one of these kinds, others passed over; EOFError if there is none."""
        while True:
            head = await self._reader.readexactly(_HEAD_BYTES)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] in kinds:
                return Frame(Kind(head[3]), head[4], int.from_bytes(head[5:], "big"), payload)

    async def settle(self) -> None:
        """Waits until the server has read what was sent: it answers pings in their order."""
        self.send(PING)
        await self.receive(Kind.PING)
