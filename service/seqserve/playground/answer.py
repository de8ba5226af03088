"""How answers are written: the page, one message, one message a line, or an error.

A stream that fails after its first message has a last line with the error; one that ends without
the end of HTTP's own was cut off.
"""

import json
from collections.abc import AsyncIterator

import grpc
from google.protobuf.message import Message

from seqserve.playground.connection import Connection, Head
from seqserve.playground.http_error import HttpError
from seqserve.playground.page import Page
from seqserve.playground.scribe import Scribe
from seqserve.servicers.request_id import REQUEST_ID_KEY

_SAFE = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
)
"""With every answer."""
_JSON = ("content-type", "application/json; charset=utf-8")
_LINES = ("content-type", "application/x-ndjson; charset=utf-8")
_UNBUFFERED = ("x-accel-buffering", "no")
"""Asks proxies not to hold back what is streamed."""


async def send_page(connection: Connection, head: Head, page: Page) -> None:
    """Answers with the page.

    Raises:
        HttpError: It was asked for with a verb that it does not take.
    """
    if head.verb not in ("GET", "HEAD"):
        raise HttpError(
            405,
            grpc.StatusCode.INVALID_ARGUMENT,
            f"the page is read with GET, not with {head.verb}",
            headers=(("allow", "GET, HEAD"),),
        )
    length = ("content-length", str(len(page.body)))
    await connection.send_head(200, [*_SAFE, *page.headers, length])
    if head.verb == "GET":
        await connection.send_data(page.body)
    await connection.send_end()


async def send_message(
    connection: Connection, answers: AsyncIterator[Message], scribe: Scribe, request_id: str
) -> None:
    """Answers with the only message of a call."""
    async with scribe.writing(await anext(answers), request_id) as body:
        length = ("content-length", str(len(body)))
        await connection.send_head(200, [*_SAFE, _JSON, (REQUEST_ID_KEY, request_id), length])
        await connection.send_data(body)
    await connection.send_end()


async def send_messages(
    connection: Connection, answers: AsyncIterator[Message], scribe: Scribe, request_id: str
) -> None:
    """Answers with the messages of a call, each as soon as it is there."""
    message = await anext(answers, None)  # an error in place of the first has a code of its own
    await connection.send_head(200, [*_SAFE, _LINES, _UNBUFFERED, (REQUEST_ID_KEY, request_id)])
    try:
        while message is not None:
            async with scribe.writing(message, request_id) as line:
                await connection.send_data(line + b"\n")
            message = await anext(answers, None)
    except HttpError as error:
        await connection.send_data(_to_json(error))
    await connection.send_end()


async def send_error(connection: Connection, error: HttpError, request_id: str) -> None:
    """Answers with an error.

    Raises:
        ConnectionResetError: Another answer has begun, which can only be cut off.
    """
    if connection.has_answered:
        raise ConnectionResetError("an answer has begun")
    body = _to_json(error)
    headers = [_JSON, (REQUEST_ID_KEY, request_id), ("content-length", str(len(body)))]
    if not connection.has_read_all:
        headers.append(("connection", "close"))
    await connection.send_head(error.code, [*_SAFE, *headers, *error.headers])
    await connection.send_data(body)
    await connection.send_end()


def _to_json(error: HttpError) -> bytes:
    """In one line, as messages are."""
    content = {
        "code": error.code,
        "status": error.status.name,
        "message": str(error),
        "details": error.details,
    }
    return json.dumps({"error": content}, ensure_ascii=False).encode() + b"\n"
