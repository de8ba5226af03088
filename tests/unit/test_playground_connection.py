"""A connection of the HTTP port by itself: what it reads, whatever its caller has checked."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from seqserve.playground.connection import Connection
from seqserve.playground.http_error import HttpError

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
SECONDS = 20.0


async def read(data: bytes) -> bytes:
    """The body of a request that was announced with two bytes."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    nobody = cast("asyncio.StreamWriter", None)  # to whom nothing is written
    connection = Connection(reader, nobody, is_encrypted=False)
    assert await connection.read_head(SECONDS) is not None
    return await connection.read_body(2, SECONDS, lambda _: None)


async def test_no_more_is_read_than_was_announced() -> None:
    """In chunks more would come, since the length beside them counts for nothing."""
    assert await read(HEAD + b"\r\n{}") == b"{}"
    with pytest.raises(HttpError) as caught:
        await read(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\n{ }\r\n")
    assert caught.value.code == 400
    assert str(caught.value) == "the body has more than the 2 bytes that were announced"
