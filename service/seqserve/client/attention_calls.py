"""The call of Client and AsyncClient that looks inside a model."""

from typing import Any, Unpack

from seqserve.client.arguments import Source
from seqserve.client.attention_messages import AttendOptions, attend_request, to_attention
from seqserve.client.attention_results import Attention
from seqserve.v1 import attention_pb2_grpc


class AttentionCalls:
    """Part of :class:`Client`."""

    _attention: attention_pb2_grpc.AttentionServiceStub

    def _call(self, method: Any, request: Any, timeout_seconds: float | None) -> Any:
        """Makes a unary call."""
        raise NotImplementedError

    def attend(
        self,
        source: Source,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[AttendOptions],
    ) -> Attention:
        """Tells what attends to what in a source and a target, which is generated if not given."""
        request = attend_request(source, options)
        return to_attention(self._call(self._attention.Attend, request, timeout_seconds))


class AsyncAttentionCalls:
    """Part of :class:`AsyncClient`."""

    # The type exists only in the type stubs.
    _attention: "attention_pb2_grpc.AttentionServiceAsyncStub"

    async def _call(self, method: Any, request: Any, timeout_seconds: float | None) -> Any:
        """Makes a unary call."""
        raise NotImplementedError

    async def attend(
        self,
        source: Source,
        *,
        timeout_seconds: float | None = None,
        **options: Unpack[AttendOptions],
    ) -> Attention:
        """Tells what attends to what in a source and a target, which is generated if not given."""
        request = attend_request(source, options)
        return to_attention(await self._call(self._attention.Attend, request, timeout_seconds))
