"""A running server with a channel to it, for integration tests."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import grpc

from seqserve.metrics import Metrics
from seqserve.registry import Registry
from seqserve.server import Ports, Server
from seqserve.v1 import encoding_pb2_grpc, generation_pb2, generation_pb2_grpc, model_pb2_grpc

TOKEN_LABELS = ("O", "B-PER", "I-PER", "I-LOC")
"""Of the model that classifies tokens."""


@dataclasses.dataclass
class RunningServer:
    """Stubs of a server that stops with the context."""

    server: Server
    registry: Registry
    metrics: Metrics
    ports: Ports

    @property
    def num_outstanding(self) -> int:
        """Places held, in all models."""
        return sum(model.admission.num_outstanding for model in self.registry.models)

    @property
    def num_in_flight(self) -> float:
        """Calls whose messages have arrived and which are not answered."""
        return sum(
            sample.value
            for metric in self.metrics.requests_in_flight.collect()
            for sample in metric.samples
        )

    def count_calls(self, code: str, method: str | None = None) -> float:
        """Calls that were answered with a code, of all methods or of one."""
        return sum(
            sample.value
            for metric in self.metrics.requests.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.labels["code"] == code
            if method in (None, sample.labels["method"])
        )

    async def __aenter__(self) -> "RunningServer":
        """Connects."""
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.ports.grpc}")
        self.generation = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.encoding = encoding_pb2_grpc.EncodingServiceStub(self.channel)
        self.model = model_pb2_grpc.ModelServiceStub(self.channel)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnects, and stops the server."""
        await self.channel.close()
        await self.server.stop()


MakeServer = Callable[..., AbstractAsyncContextManager[RunningServer]]
"""The fixture ``serving``: settings as keyword arguments to a server."""


def source(token_ids: list[int], **options: object) -> generation_pb2.GenerateInput:
    """One input of token ids with options of its own."""
    return generation_pb2.GenerateInput(
        token_ids=generation_pb2.TokenIds(values=token_ids),
        options=generation_pb2.GenerateOptions(**options),  # type: ignore[arg-type]
    )


def status_of(error: grpc.aio.AioRpcError) -> str:
    """Code and text in one line."""
    return f"{error.code().name}: {error.details()}"
