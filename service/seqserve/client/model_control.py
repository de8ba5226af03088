"""The calls of Client and AsyncClient that change which models a server serves."""

from typing import Any

from seqserve.client.model_info import ModelInfo
from seqserve.client.model_messages import to_models
from seqserve.v1 import model_pb2, model_pb2_grpc


class ModelControl:
    """Part of :class:`Client`."""

    _models: model_pb2_grpc.ModelServiceStub

    def _call(self, method: Any, request: Any, timeout_seconds: float | None) -> Any:
        """Makes a unary call."""
        raise NotImplementedError

    def load_model(
        self, name: str, version: str, *, timeout_seconds: float | None = None
    ) -> ModelInfo:
        """Has the server load a version from its store, and waits until it serves.

        The server goes on with it when the deadline passes. It must allow it (allow_model_control).
        """
        request = model_pb2.LoadModelRequest(model_name=name, model_version=version)
        response = self._call(self._models.LoadModel, request, timeout_seconds)
        return to_models([response.model])[0]

    def unload_model(
        self, name: str, version: str, *, timeout_seconds: float | None = None
    ) -> None:
        """Has the server unload a version, and waits until its requests are answered."""
        request = model_pb2.UnloadModelRequest(model_name=name, model_version=version)
        self._call(self._models.UnloadModel, request, timeout_seconds)


class AsyncModelControl:
    """Part of :class:`AsyncClient`."""

    # The type exists only in the type stubs.
    _models: "model_pb2_grpc.ModelServiceAsyncStub"

    async def _call(self, method: Any, request: Any, timeout_seconds: float | None) -> Any:
        """Makes a unary call."""
        raise NotImplementedError

    async def load_model(
        self, name: str, version: str, *, timeout_seconds: float | None = None
    ) -> ModelInfo:
        """Has the server load a version from its store, and waits until it serves.

        The server goes on with it when the deadline passes. It must allow it (allow_model_control).
        """
        request = model_pb2.LoadModelRequest(model_name=name, model_version=version)
        response = await self._call(self._models.LoadModel, request, timeout_seconds)
        return to_models([response.model])[0]

    async def unload_model(
        self, name: str, version: str, *, timeout_seconds: float | None = None
    ) -> None:
        """Has the server unload a version, and waits until its requests are answered."""
        request = model_pb2.UnloadModelRequest(model_name=name, model_version=version)
        await self._call(self._models.UnloadModel, request, timeout_seconds)
