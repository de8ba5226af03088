"""Calls as a browser makes them: grpc-web over plain HTTP/1.1.

Source: ``PROTOCOL-WEB.md`` of grpc/grpc. A message is a byte of flags, its length in four bytes,
and its bytes; trailers come last, as lines of text in a frame whose flags have the highest bit set.
"""

from __future__ import annotations

import base64
import http.client
import urllib.parse

from foreign_call import ForeignCall, Outcome, to_outcome

ORIGIN = "https://app.example"
"""The page of the browser, which the configuration allows."""
_HEAD_BYTES = 5
_TRAILERS = 0x80
_PATIENCE_SECONDS = 30.0


def call_as_browser(port: int, call: ForeignCall) -> Outcome:
    """Makes a call with one request."""
    (request,) = call.requests
    message = request.SerializeToString()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)
    headers = {
        "content-type": "application/grpc-web+proto",
        "origin": ORIGIN,
        "x-grpc-web": "1",
        "grpc-timeout": f"{round(call.timeout_seconds * 1000)}m",
    }
    try:
        connection.request(
            "POST",
            call.path,
            body=b"\x00" + len(message).to_bytes(4, "big") + message,
            headers=headers | call.metadata,
        )
        response = connection.getresponse()
        assert response.status == 200, str(response.headers)
        assert response.headers["access-control-allow-origin"] == ORIGIN
        replies, trailers = _read(response.read())
    finally:
        connection.close()
    # A status without any message may come as headers.
    trailers = {key.lower(): value for key, value in response.headers.items()} | trailers
    values: dict[str, str | bytes] = {
        key: _decode(value) if key.endswith("-bin") else value for key, value in trailers.items()
    }
    text = urllib.parse.unquote(trailers.get("grpc-message", ""))
    return to_outcome(call, int(trailers["grpc-status"]), text, replies, values)


def ask_for_leave(port: int, path: str) -> http.client.HTTPMessage:
    """What a browser asks first (CORS): the headers of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)
    headers = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-grpc-web",
    }
    try:
        connection.request("OPTIONS", path, headers=headers)
        return connection.getresponse().headers
    finally:
        connection.close()


def _read(body: bytes) -> tuple[list[bytes], dict[str, str]]:
    replies: list[bytes] = []
    trailers: dict[str, str] = {}
    while body:
        flags, length = body[0], int.from_bytes(body[1:_HEAD_BYTES], "big")
        content, body = body[_HEAD_BYTES:][:length], body[_HEAD_BYTES + length :]
        if flags & _TRAILERS:
            lines = content.decode().splitlines()
            pairs = (line.partition(":") for line in lines if line)
            trailers |= {key.strip().lower(): value.strip() for key, _, value in pairs}
        else:
            replies.append(content)
    return replies, trailers


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))  # gRPC leaves the padding out
