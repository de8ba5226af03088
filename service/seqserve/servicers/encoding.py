"""EncodingService: text in; embeddings, labels, scores and tokens out."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

from typing import Any

import grpc

from seqserve.config import ServerConfig
from seqserve.registry import Registry
from seqserve.served_model import ServedModel
from seqserve.servicers.calls import Calls
from seqserve.servicers.classification import classify
from seqserve.servicers.embedding import embed
from seqserve.servicers.embedding_stream import EmbeddingStream
from seqserve.servicers.mask_filling import fill_masks
from seqserve.servicers.reranking import rerank
from seqserve.servicers.token_classification import classify_tokens
from seqserve.servicers.turn import take_turn
from seqserve.task_record import Task
from seqserve.v1 import encoding_pb2, encoding_pb2_grpc, model_pb2


class EncodingServicer(encoding_pb2_grpc.EncodingServiceServicer):
    """Answers with what the worker of the model computes."""

    def __init__(self, registry: Registry, config: ServerConfig, calls: Calls) -> None:
        self._registry = registry
        self._config = config
        self._calls = calls

    async def Embed(  # noqa: N802
        self, request: encoding_pb2.EmbedRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> encoding_pb2.EmbedResponse:
        """Embeds all texts of the request."""
        model = self._registry.find(request.model_name, request.model_version, Task.EMBED)
        turn = take_turn(request.priority, context, self._config)
        embeddings = await embed(model, request, self._config, turn)
        return encoding_pb2.EmbedResponse(embeddings=embeddings, model=_reference(model))

    async def EmbedStream(  # type: ignore[override]  # noqa: N802
        self, requests: object, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Embeds request after request of a stream; a coroutine that reads and writes."""
        await EmbeddingStream(self.Embed, context, self._config, self._calls).run()

    async def Classify(  # noqa: N802
        self, request: encoding_pb2.ClassifyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> encoding_pb2.ClassifyResponse:
        """Labels all inputs of the request."""
        model = self._registry.find(request.model_name, request.model_version, Task.CLASSIFY)
        turn = take_turn(request.priority, context, self._config)
        results = await classify(model, request, self._config, turn)
        return encoding_pb2.ClassifyResponse(results=results, model=_reference(model))

    async def ClassifyTokens(  # noqa: N802
        self,
        request: encoding_pb2.ClassifyTokensRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> encoding_pb2.ClassifyTokensResponse:
        """Finds the entities of all texts of the request."""
        model = self._registry.find(request.model_name, request.model_version, Task.CLASSIFY_TOKENS)
        turn = take_turn(request.priority, context, self._config)
        results = await classify_tokens(model, request, self._config, turn)
        return encoding_pb2.ClassifyTokensResponse(results=results, model=_reference(model))

    async def Rerank(  # noqa: N802
        self, request: encoding_pb2.RerankRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> encoding_pb2.RerankResponse:
        """Scores the documents of the request."""
        model = self._registry.find(request.model_name, request.model_version, Task.RERANK)
        turn = take_turn(request.priority, context, self._config)
        results = await rerank(model, request, self._config, turn)
        return encoding_pb2.RerankResponse(results=results, model=_reference(model))

    async def FillMask(  # noqa: N802
        self, request: encoding_pb2.FillMaskRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> encoding_pb2.FillMaskResponse:
        """Fills the masks of all texts of the request."""
        model = self._registry.find(request.model_name, request.model_version, Task.FILL_MASK)
        turn = take_turn(request.priority, context, self._config)
        results = await fill_masks(model, request, self._config, turn)
        return encoding_pb2.FillMaskResponse(results=results, model=_reference(model))


def _reference(model: ServedModel) -> model_pb2.ModelReference:
    return model_pb2.ModelReference(name=model.manifest.name, version=model.manifest.version)
