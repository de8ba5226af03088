"""What a failed call raises."""

from collections.abc import Iterable
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2


class CallError(Exception):
    """A call that the server refused, or that did not reach it."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        fields: dict[str, str] | None = None,
        retry_after_seconds: float | None = None,
        request_id: str | None = None,
    ) -> None:
        # Of other codes the message says all there is; of this one, the server's log.
        where = f" (request id {request_id})" if request_id and code == "INTERNAL" else ""
        super().__init__(f"{code}: {message}{where}")
        self.code = code
        """Name of the gRPC status code, "INVALID_ARGUMENT", say."""
        self.message = message
        self.fields = fields or {}
        """What is wrong with which field of the request."""
        self.retry_after_seconds = retry_after_seconds
        """When the server suggests to try again."""
        self.request_id = request_id
        """Under which the server's log has the details."""


def read_details(
    status: status_pb2.Status,
) -> tuple[dict[str, str], float | None, str | None]:
    """What is wrong with which field, when to try again, and the id of the request."""
    fields: dict[str, str] = {}
    retry_after_seconds, request_id = None, None
    bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(bad_request):
            fields = {
                violation.field: violation.description for violation in bad_request.field_violations
            }
        elif detail.Unpack(retry):
            retry_after_seconds = retry.retry_delay.ToMilliseconds() / 1000
        elif detail.Unpack(info):
            request_id = info.metadata.get("request_id")
    return fields, retry_after_seconds, request_id


def to_call_error(error: grpc.RpcError) -> CallError:
    """Reads the status and the rich details of a failed call."""
    code = error.code()
    trailers: Iterable[tuple[str, Any]] = error.trailing_metadata() or ()  # type: ignore[assignment]
    fields: dict[str, str] = {}
    retry_after_seconds, request_id = None, None
    for key, value in trailers:
        if key == "x-request-id":
            request_id = str(value)
        if key == "grpc-status-details-bin":
            fields, retry_after_seconds, _ = read_details(status_pb2.Status.FromString(value))
    return CallError(
        code.name,
        error.details() or "no details",
        fields=fields,
        retry_after_seconds=retry_after_seconds,
        request_id=request_id,
    )
