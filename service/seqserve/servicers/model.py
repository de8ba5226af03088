"""ModelService: which models there are, and their tokenizers."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
from collections.abc import Sequence as Items
from typing import Any

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.loader import Loader
from seqserve.registry import Registry
from seqserve.served_model import ServedModel
from seqserve.servicers.input_check import (
    check_count,
    check_text,
    check_token_count,
    check_token_ids,
)
from seqserve.servicers.model_description import describe
from seqserve.tokenizer import TokenSpan
from seqserve.v1 import model_pb2, model_pb2_grpc


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Answers from manifests and tokenizers, which needs no worker; has models come and go."""

    def __init__(self, registry: Registry, loader: Loader, config: ServerConfig) -> None:
        self._registry = registry
        self._loader = loader
        self._config = config

    async def ListModels(  # noqa: N802
        self, request: model_pb2.ListModelsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.ListModelsResponse:
        """Lists the served models."""
        return model_pb2.ListModelsResponse(
            models=[self._describe(model) for model in self._registry.models]
        )

    async def GetModel(  # noqa: N802
        self, request: model_pb2.GetModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.GetModelResponse:
        """Describes one model."""
        model = self._registry.find(request.model_name, request.model_version, None)
        return model_pb2.GetModelResponse(model=self._describe(model))

    async def LoadModel(  # noqa: N802
        self, request: model_pb2.LoadModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.LoadModelResponse:
        """Loads a version of the store."""
        self._loader.check_is_allowed()
        _check_names(request)
        model = await self._loader.load(request.model_name, request.model_version)
        return model_pb2.LoadModelResponse(model=self._describe(model))

    async def UnloadModel(  # noqa: N802
        self, request: model_pb2.UnloadModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.UnloadModelResponse:
        """Unloads a version once its requests are answered."""
        self._loader.check_is_allowed()
        _check_names(request)
        drain = await self._loader.withdraw(request.model_name, request.model_version)
        await asyncio.shield(drain)
        return model_pb2.UnloadModelResponse(
            model=model_pb2.ModelReference(name=request.model_name, version=request.model_version)
        )

    async def Tokenize(  # noqa: N802
        self, request: model_pb2.TokenizeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.TokenizeResponse:
        """Splits texts into tokens."""
        model = self._registry.find(request.model_name, request.model_version, None)
        check_count(len(request.texts), "texts", self._config)
        for index, text in enumerate(request.texts):
            check_text(text, f"texts[{index}]", self._config)
        return await asyncio.to_thread(_tokenize, model, request.texts, self._config)

    async def Detokenize(  # noqa: N802
        self, request: model_pb2.DetokenizeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.DetokenizeResponse:
        """Joins tokens to texts."""
        model = self._registry.find(request.model_name, request.model_version, None)
        check_count(len(request.sequences), "sequences", self._config)
        num_tokens = sum(len(sequence.token_ids) for sequence in request.sequences)
        check_token_count(num_tokens, "sequences", self._config)
        return await asyncio.to_thread(_detokenize, model, request.sequences)

    def _describe(self, model: ServedModel) -> model_pb2.Model:
        return describe(
            model,
            max_inputs_per_request=self._config.max_inputs_per_request,
            max_num_beams=self._config.max_num_beams,
            labels=self._registry.labels_of(model),
        )


def _check_names(request: model_pb2.LoadModelRequest | model_pb2.UnloadModelRequest) -> None:
    """Refuses calls that do not say what they mean."""
    for field, value in (
        ("model_name", request.model_name),
        ("model_version", request.model_version),
    ):
        if not value:
            raise InvalidRequestError(field, f"`{field}` must not be empty")


def _tokenize(
    model: ServedModel, texts: Items[str], config: ServerConfig
) -> model_pb2.TokenizeResponse:
    """Splits texts, as long as they hold few enough tokens together. In a thread of its own."""
    counts: list[int] = []

    def check(num_tokens: int) -> None:
        counts.append(num_tokens)
        # Those behind it are not even tokenized.
        found = f"the first {len(counts)} of {len(texts)} hold"
        check_token_count(sum(counts), "texts", config, found=found)

    return model_pb2.TokenizeResponse(
        tokenizations=[
            model_pb2.Tokenization(
                tokens=[_token(span) for span in model.source_tokenizer.spans(text, check)]
            )
            for text in texts
        ],
        model=_reference(model),
    )


def _detokenize(
    model: ServedModel, sequences: Items[model_pb2.TokenSequence]
) -> model_pb2.DetokenizeResponse:
    """Joins tokens that are in the vocabulary. In a thread of its own."""
    size = _target_vocabulary_size(model)
    texts = []
    for row, sequence in enumerate(sequences):
        token_ids = list(sequence.token_ids)
        check_token_ids(token_ids, size, f"sequences[{row}].token_ids")
        texts.append(model.target_tokenizer.decode(token_ids))
    return model_pb2.DetokenizeResponse(texts=texts, model=_reference(model))


def _reference(model: ServedModel) -> model_pb2.ModelReference:
    return model_pb2.ModelReference(name=model.manifest.name, version=model.manifest.version)


def _target_vocabulary_size(model: ServedModel) -> int:
    record = model.manifest.generation
    if record is None:
        return model.manifest.source_vocabulary_size
    return record.target_vocabulary_size


def _token(span: TokenSpan) -> model_pb2.Token:
    return model_pb2.Token(
        id=span.token_id,
        text=span.text,
        start_offset=span.start,
        end_offset=span.end,
        is_special=span.is_special,
    )
