"""How a served model is described to callers: its manifest, and the limits of the server."""

from collections.abc import Iterable

from seqserve.manifest import Manifest
from seqserve.served_model import ServedModel
from seqserve.servicers.attention_messages import describe_attention
from seqserve.task_record import (
    ClassificationRecord,
    EmbeddingRecord,
    GenerationRecord,
    MaskFillingRecord,
    RerankingRecord,
    Task,
    TokenClassificationRecord,
)
from seqserve.v1 import model_pb2

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


def describe(
    model: ServedModel, *, max_inputs_per_request: int, max_num_beams: int, labels: Iterable[str]
) -> model_pb2.Model:
    """Describes a model.

    Args:
        model: The model.
        max_inputs_per_request: The server's limit.
        max_num_beams: The server's limit.
        labels: What else its version is called.
    """
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
        max_inputs_per_request=max_inputs_per_request,
        is_batch_invariant=model.is_batch_invariant,
        labels=labels,
    )
    if manifest.generation is not None:
        message.generation.CopyFrom(_describe_generation(manifest.generation, max_num_beams))
    if manifest.embedding is not None:
        message.embedding.CopyFrom(_describe_embedding(manifest.embedding))
    _describe_head(manifest, message)
    if manifest.explanation is not None:
        message.attention.CopyFrom(describe_attention(manifest.explanation))
    return message


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
