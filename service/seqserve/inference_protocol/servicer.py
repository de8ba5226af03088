"""GRPCInferenceService: the Open Inference Protocol over the served models."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2

import seqserve
from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError, ModelNotFoundError, UnsupportedTaskError
from seqserve.inference_protocol.control import ModelControl
from seqserve.inference_protocol.inference import Inference, signatures_of
from seqserve.inference_protocol.parameter import shorten
from seqserve.inference_protocol.signature import Input, Output, Services
from seqserve.inference_protocol.statistics import describe_model
from seqserve.inference_protocol.stream import InferenceStream
from seqserve.inference_protocol.v2 import open_inference_pb2, open_inference_pb2_grpc
from seqserve.metrics import Metrics
from seqserve.registry import Registry
from seqserve.served_model import ServedModel
from seqserve.servicers.calls import Calls
from seqserve.servicers.encoding import EncodingServicer
from seqserve.servicers.generation import GenerationServicer
from seqserve.servicers.health import HealthServicer

_EXTENSIONS = ("model_repository", "parameters", "schedule_policy", "statistics")
"""Source: the names in Triton's ``docs/protocol``."""
_DEPENDENTS = "unload_dependents"
_Context = grpc.aio.ServicerContext
_TensorMetadata = open_inference_pb2.ModelMetadataResponse.TensorMetadata


class InferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers with what the servicers of ``seqserve.v1`` answer."""

    def __init__(
        self,
        registry: Registry,
        config: ServerConfig,
        metrics: Metrics,
        calls: Calls,
        health_servicer: HealthServicer,
        control: ModelControl,
    ) -> None:
        self._registry = registry
        self._config = config
        self._metrics = metrics
        self._calls = calls
        self._health = health_servicer
        self._control = control
        services = Services(
            GenerationServicer(registry, config), EncodingServicer(registry, config, calls), config
        )
        self._inference = Inference(registry, services)

    async def ServerLive(  # noqa: N802
        self, request: open_inference_pb2.ServerLiveRequest, context: _Context[Any, Any]
    ) -> open_inference_pb2.ServerLiveResponse:
        """Says that the event loop goes round."""
        return open_inference_pb2.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802
        self, request: open_inference_pb2.ServerReadyRequest, context: _Context[Any, Any]
    ) -> open_inference_pb2.ServerReadyResponse:
        """Says what the health service says."""
        return open_inference_pb2.ServerReadyResponse(ready=await self._is_ready(context))

    async def ModelReady(  # noqa: N802
        self, request: open_inference_pb2.ModelReadyRequest, context: _Context[Any, Any]
    ) -> open_inference_pb2.ModelReadyResponse:
        """Says whether a model can be called."""
        try:
            model = self._find(request.name, request.version)
        except ModelNotFoundError:
            return open_inference_pb2.ModelReadyResponse(ready=False)
        is_ready = not _reason_unavailable(model) and await self._is_ready(context)
        return open_inference_pb2.ModelReadyResponse(ready=is_ready)

    async def ServerMetadata(  # noqa: N802
        self, request: open_inference_pb2.ServerMetadataRequest, context: _Context[Any, Any]
    ) -> open_inference_pb2.ServerMetadataResponse:
        """Names server and extensions."""
        return open_inference_pb2.ServerMetadataResponse(
            name="seqserve", version=seqserve.__version__, extensions=_EXTENSIONS
        )

    async def ModelMetadata(  # noqa: N802
        self, request: open_inference_pb2.ModelMetadataRequest, context: _Context[Any, Any]
    ) -> open_inference_pb2.ModelMetadataResponse:
        """Lists the tensors of a model, those of all ways to call it."""
        model = self._find(request.name, request.version)
        name = model.manifest.name
        signatures = signatures_of(model)
        inputs = {one.name: one for way in signatures for one in way.inputs}
        outputs = {one.name: one for way in signatures for one in way.outputs}
        return open_inference_pb2.ModelMetadataResponse(
            name=name,
            versions=[
                other.manifest.version
                for other in self._registry.models
                if other.manifest.name == name
            ],
            platform=f"seqserve_{model.manifest.tasks[0]}",
            inputs=map(_to_metadata, inputs.values()),
            outputs=map(_to_metadata, outputs.values()),
        )

    async def ModelInfer(  # noqa: N802
        self, request: open_inference_pb2.ModelInferRequest, context: _Context[Any, Any]
    ) -> open_inference_pb2.ModelInferResponse:
        """Runs one request."""
        return await self._inference.infer(request, context)

    async def ModelStreamInfer(  # type: ignore[override]  # noqa: N802
        self, requests: object, context: _Context[Any, Any]
    ) -> None:
        """Runs the requests of a stream; a coroutine that reads and writes."""
        await InferenceStream(self._inference, context, self._config, self._calls).run()

    async def ModelStatistics(  # noqa: N802
        self, request: open_inference_pb2.ModelStatisticsRequest, context: _Context[Any, Any]
    ) -> open_inference_pb2.ModelStatisticsResponse:
        """Tells what models have done."""
        models = self._registry.models
        if request.name or request.version:
            found = self._registry.find(request.name, request.version, None)
            models = [
                model
                for model in models
                if model is found
                or (not request.version and model.manifest.name == found.manifest.name)
            ]
        registry, device = self._metrics.registry, self._config.device
        return open_inference_pb2.ModelStatisticsResponse(
            model_stats=[describe_model(model, registry, device) for model in models]
        )

    async def RepositoryIndex(  # noqa: N802
        self, request: open_inference_pb2.RepositoryIndexRequest, context: _Context[Any, Any]
    ) -> open_inference_pb2.RepositoryIndexResponse:
        """Lists the models."""
        _check_repository(request.repository_name)
        response = open_inference_pb2.RepositoryIndexResponse()
        for model in self._registry.models:
            reason = _reason_unavailable(model)
            if not (reason and request.ready):
                response.models.add(
                    name=model.manifest.name,
                    version=model.manifest.version,
                    state="UNAVAILABLE" if reason else "READY",
                    reason=reason,
                )
        return response

    async def RepositoryModelLoad(  # noqa: N802
        self, request: open_inference_pb2.RepositoryModelLoadRequest, context: _Context[Any, Any]
    ) -> open_inference_pb2.RepositoryModelLoadResponse:
        """Loads a model, if the server allows it."""
        _check_repository(request.repository_name)
        for name in sorted(request.parameters):
            raise InvalidRequestError(
                shorten(name),
                f"the parameter `{shorten(name)}` is not supported: a model is what its folder in "
                "the store says; leave it out",
            )
        await self._control.load(_check_name(request.model_name))
        return open_inference_pb2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802
        self, request: open_inference_pb2.RepositoryModelUnloadRequest, context: _Context[Any, Any]
    ) -> open_inference_pb2.RepositoryModelUnloadResponse:
        """Unloads a model, if the server allows it."""
        _check_repository(request.repository_name)
        for name, parameter in sorted(request.parameters.items()):
            if name != _DEPENDENTS or parameter.bool_param:
                raise InvalidRequestError(
                    shorten(name),
                    f"the parameter `{shorten(name)}` is not supported: no model depends on "
                    "another; leave it out",
                )
        await self._control.unload(_check_name(request.model_name))
        return open_inference_pb2.RepositoryModelUnloadResponse()

    def _find(self, name: str, version: str) -> ServedModel:
        """The model of a request that has a ``name``, where others have a ``model_name``."""
        try:
            return self._registry.find(name, version, None)
        except InvalidRequestError as error:
            message = str(error).replace("`model_name`", "`name`")
            raise InvalidRequestError("name", message) from error

    async def _is_ready(self, context: _Context[Any, Any]) -> bool:
        status = await self._health.Check(health_pb2.HealthCheckRequest(), context)
        return bool(status.status == health_pb2.HealthCheckResponse.SERVING)


def _to_metadata(tensor: Input | Output) -> _TensorMetadata:
    return _TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)


def _reason_unavailable(model: ServedModel) -> str:
    """Why a model cannot be called by this protocol; empty if it can."""
    try:
        signatures_of(model)
    except UnsupportedTaskError as error:
        return str(error)
    if not any(worker.is_alive for worker in model.lanes.workers):
        return "its worker was lost; the server must restart"
    return ""


def _check_repository(name: str) -> None:
    if name:
        raise InvalidRequestError(
            "repository_name",
            f"`repository_name` must be empty, since there is one store, but is {shorten(name)!r}",
        )


def _check_name(name: str) -> str:
    if not name:
        raise InvalidRequestError("model_name", "`model_name` must not be empty")
    return name
