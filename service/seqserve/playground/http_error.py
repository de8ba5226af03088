"""What a browser is told when something is refused: one JSON object, whoever refused it.

Source: the JSON of errors of Google's APIs, https://google.aip.dev/193, and the HTTP codes beside
``google.rpc.Code``.
"""

import contextlib
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from seqserve.errors import SeqserveError
from seqserve.servicers.status import DETAILS_KEY, to_status

HTTP_CODES: dict[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
"""The HTTP code of every status."""
_DETAILS = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
"""Known to the pool of messages, without which details cannot be written as JSON."""


class HttpError(Exception):
    """A request that gets an answer in place of what it asked for."""

    def __init__(
        self,
        code: int,
        status: grpc.StatusCode,
        message: str,
        details: list[dict[str, Any]] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        """Of HTTP."""
        self.status = status
        self.details = details or []
        """Messages of ``google.rpc``, each as an object with its ``@type``."""
        self.headers = headers
        """That go with the answer."""


def from_call(error: grpc.aio.AioRpcError) -> HttpError:
    """What a call has ended with."""
    details: list[dict[str, Any]] = []
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            details = _read_details(value)
    status = error.code()
    return HttpError(HTTP_CODES[status], status, error.details() or "", details)


def from_ours(error: SeqserveError, request_id: str) -> HttpError:
    """What is refused before there is a call, in the words of a call that is refused."""
    status = to_status(error, request_id)
    details = [
        one
        for key, value in status.metadata
        if key == DETAILS_KEY and isinstance(value, bytes)
        for one in _read_details(value)
    ]
    return HttpError(HTTP_CODES[status.code], status.code, status.message, details)


def _read_details(data: bytes) -> list[dict[str, Any]]:
    """The details of a ``google.rpc.Status``; none where a proxy has damaged them."""
    with contextlib.suppress(DecodeError, TypeError):
        status = status_pb2.Status.FromString(data)
        return [json_format.MessageToDict(one) for one in status.details]
    return []
