"""Requests whose bytes are not made a message: they reach the handler, which says so."""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from seqserve.errors import InvalidRequestError
from seqserve.servicers.field_count import count_fields

MOST_FIELDS = 65_536
"""Of a message and of those in it: objects of a hundred bytes and more, made on the event loop."""
_FEW_BYTES = 65_536
"""So many cannot be too many fields."""


class Malformed:
    """Stands for a request that is not read."""

    def __init__(self, problem: str) -> None:
        self.problem = problem


def tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Reads requests, and what is none as :class:`Malformed`; gRPC would answer with UNKNOWN."""
    assert deserialize is not None
    # Generated code reads with ``FromString`` of the message's class.
    descriptor = getattr(getattr(deserialize, "__self__", None), "DESCRIPTOR", None)

    def read(data: bytes) -> Any:
        if (
            descriptor is not None
            and len(data) > _FEW_BYTES
            and count_fields(data, descriptor, MOST_FIELDS) > MOST_FIELDS
        ):
            return Malformed(
                f"the request has more than {MOST_FIELDS} fields in all; send fewer inputs at once"
            )
        try:
            return deserialize(data)
        except (DecodeError, UnicodeDecodeError):
            return Malformed("the request's bytes are not a message of its type")

    return read


def check_form(request: Any) -> None:
    """Refuses what could not be read."""
    if isinstance(request, Malformed):
        raise InvalidRequestError("", request.problem)
