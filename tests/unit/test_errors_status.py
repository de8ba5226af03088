"""From errors to gRPC status: one table, rich details, and no text that should stay inside."""

import ast
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

import seqserve
from seqserve import errors
from seqserve.errors import (
    STATUS_CODES,
    ConfigurationError,
    DeadlineError,
    EngineError,
    InvalidRequestError,
    ModelFolderError,
    ModelNotFoundError,
    NoTokenLeftError,
    OverloadedError,
    PassInterruptedError,
    PermissionDeniedError,
    SeqserveError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedTaskError,
)
from seqserve.servicers.status import Status, to_status

START_UP_ONLY = {ModelFolderError, ConfigurationError}
INSIDE_ONLY = {NoTokenLeftError, PassInterruptedError}
"""What servicers turn into another error, or what nobody waits for."""
SECRET = "secret/path"


def rich(status: Status) -> Any:
    """The status message in the trailing metadata."""
    (data,) = [value for key, value in status.metadata if key == "grpc-status-details-bin"]
    assert isinstance(data, bytes)
    return status_pb2.Status.FromString(data)


def detail(status: Status, kind: Any) -> Any:
    """The one detail of a kind, or None."""
    found = [packed for packed in rich(status).details if packed.Is(kind.DESCRIPTOR)]
    if not found:
        return None
    (packed,) = found
    message = kind()
    packed.Unpack(message)
    return message


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (InvalidRequestError("inputs", "text"), "INVALID_ARGUMENT", "InvalidRequestError"),
        (UnauthenticatedError("text"), "UNAUTHENTICATED", "UnauthenticatedError"),
        (PermissionDeniedError("text"), "PERMISSION_DENIED", "PermissionDeniedError"),
        (ModelNotFoundError("text"), "NOT_FOUND", "ModelNotFoundError"),
        (UnsupportedTaskError("text"), "UNIMPLEMENTED", "UnsupportedTaskError"),
        (OverloadedError("text", 2.0), "RESOURCE_EXHAUSTED", "OverloadedError"),
        (UnavailableError("text"), "UNAVAILABLE", "UnavailableError"),
        (DeadlineError("text"), "DEADLINE_EXCEEDED", "DeadlineError"),
    ],
)
def test_errors_of_the_caller_keep_their_text(error: Exception, code: str, reason: str) -> None:
    """Code, message and reason say what went wrong, in the status and in its details."""
    status = to_status(error, "id-1")
    assert (status.code, status.message) == (grpc.StatusCode[code], "text")
    assert (rich(status).code, rich(status).message) == (code_pb2.Code.Value(code), "text")
    info = detail(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (reason, "seqserve")
    assert dict(info.metadata) == {"request_id": "id-1"}
    assert ("x-request-id", "id-1") in status.metadata


@pytest.mark.parametrize(
    "error",
    [
        EngineError(SECRET),
        ModelFolderError(SECRET),
        ConfigurationError(SECRET),
        SeqserveError(SECRET),
        RuntimeError(SECRET),
        KeyError(SECRET),
        AssertionError(SECRET),
        OSError(2, SECRET),
    ],
)
def test_internal_errors_leak_no_text(error: Exception) -> None:
    """The caller gets the request id to quote, and nothing of the error's own text."""
    status = to_status(error, "id-2")
    assert status.code is grpc.StatusCode.INTERNAL
    assert SECRET not in repr(status)
    assert status.message == (
        "internal error; the server's log has the details under this request id"
    )
    assert detail(status, error_details_pb2.ErrorInfo).metadata["request_id"] == "id-2"


@pytest.mark.parametrize("error", [EngineError("text"), RuntimeError("text")])
def test_reason_of_internal_errors_is_general(error: Exception) -> None:
    """Not even the type of what failed is told."""
    assert detail(to_status(error, "id"), error_details_pb2.ErrorInfo).reason == "InternalError"


def test_overload_says_when_to_come_back() -> None:
    """The delay is there for programs (RetryInfo) and for gRPC's own retries (push-back)."""
    status = to_status(OverloadedError("text", retry_after_seconds=1.25), "id")
    retry = detail(status, error_details_pb2.RetryInfo)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 250_000_000)
    assert ("grpc-retry-pushback-ms", "1250") in status.metadata


def test_invalid_request_names_the_field() -> None:
    """BadRequest has the path of the field and the message."""
    status = to_status(InvalidRequestError("inputs[2].text", "`text` must not be empty"), "id")
    (violation,) = detail(status, error_details_pb2.BadRequest).field_violations
    assert (violation.field, violation.description) == (
        "inputs[2].text",
        "`text` must not be empty",
    )


def test_other_errors_have_neither_field_nor_delay() -> None:
    """Details that do not apply are left out."""
    status = to_status(UnavailableError("text"), "id")
    assert detail(status, error_details_pb2.BadRequest) is None
    assert detail(status, error_details_pb2.RetryInfo) is None
    assert [key for key, _ in status.metadata] == ["x-request-id", "grpc-status-details-bin"]


def test_every_error_on_the_wire_has_a_code() -> None:
    """Each of our errors is in the table, unless it can only occur at start-up or inside."""
    assert set(STATUS_CODES) | START_UP_ONLY | INSIDE_ONLY == {
        kind for kind in vars(errors).values() if isinstance(kind, type)
    } - {SeqserveError}
    assert not set(STATUS_CODES) & (START_UP_ONLY | INSIDE_ONLY)
    assert grpc.StatusCode.UNKNOWN not in STATUS_CODES.values()


def test_subclasses_share_the_code_of_their_base() -> None:
    """A more special error needs no entry of its own."""

    class FullError(OverloadedError):
        """Stands for a later refinement."""

    assert to_status(FullError("text", 1.0), "id").code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_servicers_raise_only_errors_of_the_table() -> None:
    """No start-up error is raised where requests are handled."""
    folder = Path(seqserve.__file__).parent
    raised = {
        node.exc.func.id
        for path in [*folder.glob("servicers/*.py"), folder / "worker.py", folder / "admission.py"]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
    }
    assert raised
    assert raised <= {kind.__name__ for kind in STATUS_CODES}


def test_tree_in_the_docstring_is_complete() -> None:
    """The drawing at the top of the module shows every error."""
    assert errors.__doc__ is not None
    for kind in [*STATUS_CODES, *START_UP_ONLY, *INSIDE_ONLY]:
        assert f"+-- {kind.__name__} " in errors.__doc__
