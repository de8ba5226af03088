"""From our errors to a gRPC status with rich details."""

import dataclasses

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from seqserve.errors import (
    STATUS_CODES,
    EngineError,
    InvalidRequestError,
    OverloadedError,
    SeqserveError,
)
from seqserve.servicers.request_id import REQUEST_ID_KEY

_DOMAIN = "seqserve"
DETAILS_KEY = "grpc-status-details-bin"
"""The metadata key of ``google.rpc.Status``."""
_INTERNAL_TEXT = "internal error; the server's log has the details under this request id"


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """What a failed call is answered with."""

    code: grpc.StatusCode
    message: str
    metadata: tuple[tuple[str, str | bytes], ...]
    """Trailing metadata: ``grpc-status-details-bin``, and push-back for retries."""


def to_status(error: BaseException, request_id: str) -> Status:
    """Describes an error to the caller; unexpected ones without any of their text."""
    code = code_of(error)
    is_ours = isinstance(error, SeqserveError) and not isinstance(error, EngineError)
    message = str(error) if is_ours and code is not grpc.StatusCode.INTERNAL else _INTERNAL_TEXT
    reason = type(error).__name__ if is_ours else "InternalError"
    info = error_details_pb2.ErrorInfo(
        reason=reason, domain=_DOMAIN, metadata={"request_id": request_id}
    )
    details = [_pack(info)]
    metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID_KEY, request_id)]
    if isinstance(error, InvalidRequestError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message
        )
        details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    if isinstance(error, OverloadedError):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_seconds * 1000))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
        # gRPC clients with a retry policy wait this long (gRFC A6).
        metadata.append(("grpc-retry-pushback-ms", str(round(error.retry_after_seconds * 1000))))
    rich = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message, details=details)
    metadata.append((DETAILS_KEY, rich.SerializeToString()))
    return Status(code, message, tuple(metadata))


def reason_of(error: BaseException) -> str:
    """What went wrong in a word, for metrics and logs; there are as many as classes of ours."""
    if not isinstance(error, SeqserveError):
        return "unexpected"
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"_{one.lower()}" if one.isupper() else one for one in name).removeprefix("_")


def code_of(error: BaseException) -> grpc.StatusCode:
    """The code of the one table; INTERNAL for whatever is not in it."""
    for kind, code in STATUS_CODES.items():
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.INTERNAL


def _pack(
    detail: error_details_pb2.ErrorInfo
    | error_details_pb2.BadRequest
    | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
