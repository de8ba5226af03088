"""Calls whose deadline has passed when they come."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from seqserve.metrics import Metrics
from seqserve.servicers.calls import Calls
from seqserve.servicers.interceptor import CallInterceptor
from seqserve.v1 import model_pb2

METHOD = "/seqserve.v1.ModelService/ListModels"
REQUEST = model_pb2.ListModelsRequest()


class AbortedError(Exception):
    """What ends a handler."""


class Context:
    """What gRPC gives a handler."""

    def __init__(self, remaining_seconds: float | None) -> None:
        self.code = grpc.StatusCode.OK
        self.message = ""
        self._remaining_seconds = remaining_seconds

    def time_remaining(self) -> float | None:
        """Until the deadline; 0 behind it."""
        return self._remaining_seconds

    def invocation_metadata(self) -> tuple[()]:
        """Nothing."""
        return ()

    def set_trailing_metadata(self, metadata: object) -> None:
        """Nothing of interest."""

    async def abort(self, code: grpc.StatusCode, message: str, metadata: object) -> None:
        """Ends the call."""
        self.code, self.message = code, message
        raise AbortedError


async def call(context: Any, handled: list[object]) -> None:
    """One through the interceptor."""

    async def handle(request: object, _: object) -> None:
        handled.append(request)

    async def find(_: object) -> Any:
        return grpc.unary_unary_rpc_method_handler(handle, model_pb2.ListModelsRequest.FromString)

    details: Any = type("Details", (), {"method": METHOD})()
    metrics = Metrics()
    interceptor = CallInterceptor(metrics, Calls(1, metrics))
    handler: Any = await interceptor.intercept_service(find, details)
    await handler.unary_unary(REQUEST, context)


async def test_expired_call_is_not_handled() -> None:
    """However fast it would be: gRPC's own clock may ring after the answer."""
    context, handled = Context(0.0), list[object]()
    with pytest.raises(AbortedError):
        await call(context, handled)
    assert handled == []
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert context.message.startswith("the deadline passed before the call came")


@pytest.mark.parametrize("remaining_seconds", [0.001, None])
async def test_others_are(remaining_seconds: float | None) -> None:
    """With whatever time there is, and without a deadline."""
    context, handled = Context(remaining_seconds), list[object]()
    await call(context, handled)
    assert handled == [REQUEST]
    assert context.code is grpc.StatusCode.OK
