"""Between JSON and messages, by protobuf's own rules.

Source: the JSON mapping of protobuf, https://protobuf.dev/programming-guides/json
"""

import re
from typing import TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from seqserve.playground.http_error import HTTP_CODES, HttpError
from seqserve.servicers.malformed import MOST_FIELDS

_Message = TypeVar("_Message", bound=Message)

_WHITE = " \t\r\n"
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+\\?(?:"|\Z)', re.DOTALL)
"""One that has no end goes to the end of the body. Were it none, the body would be read to its end
again from each quote in it, which takes seconds for ten thousand of them.
"""
_MOST_STRINGS = 2 * MOST_FIELDS
"""Each value may have a name."""
_REASON_CHARACTERS = 1000
"""Of what is wrong with a body, which may quote megabytes of it."""


def read_message(body: bytes, kind: type[_Message]) -> _Message:
    """Makes a message of a body.

    Raises:
        HttpError: It is no JSON, or no such message; the error says where.
    """
    name = kind.DESCRIPTOR.name
    # Millions of empty values fit into a body, of which objects would be made before gRPC's own
    # limit is asked.
    plain, num_strings = _STRING.subn(b"", body, count=_MOST_STRINGS + 1)
    if num_strings > _MOST_STRINGS or sum(map(plain.count, (b"[", b"{", b","))) > MOST_FIELDS:
        raise _refusal(
            f"the body has more than {MOST_FIELDS} values in all; send fewer inputs at once"
        )
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _refusal(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    if not text.lstrip(_WHITE).startswith("{"):
        raise _refusal(f"the body is no {name} in JSON: it must be an object")
    try:
        message: _Message = json_format.Parse(text, kind())
    except json_format.ParseError as error:
        reason = str(error)
        if len(reason) > _REASON_CHARACTERS:
            reason = f"{reason[:_REASON_CHARACTERS]}..."
        raise _refusal(f"the body is no {name} in JSON: {reason}") from error
    return message


def write_message(message: Message) -> bytes:
    """Makes one line of JSON, without its end."""
    return json_format.MessageToJson(message, indent=None, ensure_ascii=False).encode()


def _refusal(message: str) -> HttpError:
    code = grpc.StatusCode.INVALID_ARGUMENT
    return HttpError(HTTP_CODES[code], code, message)
