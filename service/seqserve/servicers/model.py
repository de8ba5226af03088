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
from seqserve.manifest import Manifest
from seqserve.registry import Registry
from seqserve.served_model import ServedModel
from seqserve.servicers.requests import (
    check_count,
    check_text,
    check_token_count,
    check_token_ids,
)
from seqserve.task_record import (
    ClassificationRecord,
    EmbeddingRecord,
    GenerationRecord,
    MaskFillingRecord,
    RerankingRecord,
    Task,
    TokenClassificationRecord,
)
from seqserve.tokenizer import TokenSpan
from seqserve.v1 import model_pb2, model_pb2_grpc

_TASKS = {
    Task.GENERATE: model_pb2.TASK_GENERATE,
    Task.EMBED: model_pb2.TASK_EMBED,
    Task.CLASSIFY: model_pb2.TASK_CLASSIFY,
    Task.CLASSIFY_TOKENS: model_pb2.TASK_CLASSIFY_TOKENS,
    Task.RERANK: model_pb2.TASK_RERANK,
    Task.FILL_MASK: model_pb2.TASK_FILL_MASK,
}
_PROBLEM_TYPES = {
    "single_label": model_pb2.PROBLEM_TYPE_SINGLE_LABEL,
    "multi_label": model_pb2.PROBLEM_TYPE_MULTI_LABEL,
    "regression": model_pb2.PROBLEM_TYPE_REGRESSION,
}
_ACTIVATIONS = {
    "sigmoid": model_pb2.RERANKING_ACTIVATION_SIGMOID,
    "identity": model_pb2.RERANKING_ACTIVATION_IDENTITY,
}


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
        manifest = model.manifest
        message = model_pb2.Model(
            name=manifest.name,
            version=manifest.version,
            tasks=[_TASKS[task] for task in manifest.tasks],
            family=manifest.family,
            dtype=manifest.dtype,
            max_source_length=manifest.max_source_length,
            source_vocabulary_size=manifest.source_vocabulary_size,
            source=manifest.provenance.source,
            max_inputs_per_request=self._config.max_inputs_per_request,
            is_batch_invariant=model.is_batch_invariant,
            labels=self._registry.labels_of(model),
        )
        if manifest.generation is not None:
            message.generation.CopyFrom(
                _describe_generation(manifest.generation, self._config.max_num_beams)
            )
        if manifest.embedding is not None:
            message.embedding.CopyFrom(_describe_embedding(manifest.embedding))
        _describe_head(manifest, message)
        return message


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


def _describe_generation(
    record: GenerationRecord, max_num_beams: int
) -> model_pb2.GenerationSettings:
    message = model_pb2.GenerationSettings(
        max_new_tokens=record.max_new_tokens,
        num_beams=record.num_beams,
        length_penalty=record.length_penalty,
        max_target_length=record.max_target_length,
        max_num_beams=max_num_beams,
        target_vocabulary_size=record.target_vocabulary_size,
        early_stopping=record.early_stopping,
        min_new_tokens=record.min_new_tokens,
        no_repeat_ngram_size=record.no_repeat_ngram_size,
        repetition_penalty=record.repetition_penalty,
        forced_bos_token_id=record.forced_bos_token_id,
        forced_eos_token_id=record.forced_eos_token_id,
        suppressed_token_ids=record.suppressed_tokens,
        do_sample=record.do_sample,
        temperature=record.temperature,
        top_k=record.top_k,
        top_p=record.top_p,
        suppressed_sequences=[
            model_pb2.TokenSequence(token_ids=tokens) for tokens in record.suppressed_sequences
        ],
    )
    if record.languages is not None:
        message.source_languages.extend(sorted(record.languages.source))
        message.target_languages.extend(sorted(record.languages.target))
        message.default_source_language = record.languages.default_source or ""
        message.default_target_language = record.languages.default_target or ""
    return message


def _describe_embedding(record: EmbeddingRecord) -> model_pb2.EmbeddingSettings:
    message = model_pb2.EmbeddingSettings(
        embedding_size=record.embedding_size,
        pooling=record.pooling,
        normalize=record.normalize,
        prompts=record.prompts,
        default_prompt_name=record.default_prompt_name or "",
        token_embedding_size=record.token_embedding_size or 0,
    )
    if record.sparse is not None:
        message.sparse.activation = record.sparse.activation
        if record.sparse.max_active_dims is not None:
            message.sparse.max_active_dims = record.sparse.max_active_dims
    return message


def _describe_head(manifest: Manifest, message: model_pb2.Model) -> None:
    """Fills in what the head of a model returns, if it has one."""
    match manifest.prediction:
        case ClassificationRecord() as record:
            message.classification.labels.extend(record.labels)
            message.classification.problem_type = _PROBLEM_TYPES[record.problem_type]
            message.classification.has_token_types = record.has_token_types
        case TokenClassificationRecord() as record:
            message.token_classification.labels.extend(record.labels)
        case RerankingRecord() as record:
            message.reranking.activation = _ACTIVATIONS[record.activation]
            message.reranking.prompts.update(record.prompts)
            message.reranking.default_prompt_name = record.default_prompt_name or ""
        case MaskFillingRecord() as record:
            message.mask_filling.mask_token = record.mask_token
            message.mask_filling.mask_token_id = record.mask_token_id


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
