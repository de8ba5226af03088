"""Served models and their tokens: arguments to requests, their replies to results."""

from collections.abc import Iterable
from collections.abc import Sequence as Items

from seqserve.client.arguments import as_texts
from seqserve.client.head_messages import to_head_settings
from seqserve.client.model_info import (
    AttentionSettings,
    EmbeddingSettings,
    GenerationSettings,
    ModelInfo,
    SparseSettings,
)
from seqserve.client.results import Token
from seqserve.v1 import model_pb2


def tokenize_request(
    texts: str | Items[str], model: str, version: str
) -> model_pb2.TokenizeRequest:
    """A request for the tokens of one text or several."""
    return model_pb2.TokenizeRequest(model_name=model, model_version=version, texts=as_texts(texts))


def detokenize_request(
    token_ids: Items[Items[int]], model: str, version: str
) -> model_pb2.DetokenizeRequest:
    """A request for texts of token ids."""
    return model_pb2.DetokenizeRequest(
        model_name=model,
        model_version=version,
        sequences=[model_pb2.TokenSequence(token_ids=row) for row in token_ids],
    )


def to_tokens(message: model_pb2.TokenizeResponse) -> list[list[Token]]:
    """The tokens of each text."""
    return [
        [to_token(token) for token in tokenization.tokens] for tokenization in message.tokenizations
    ]


def to_token(message: model_pb2.Token) -> Token:
    """One token and its place in the text."""
    return Token(
        message.id, message.text, message.start_offset, message.end_offset, message.is_special
    )


def to_models(messages: Iterable[model_pb2.Model]) -> list[ModelInfo]:
    """Descriptions of models."""
    return [_model(message) for message in messages]


def _model(message: model_pb2.Model) -> ModelInfo:
    return ModelInfo(
        name=message.name,
        version=message.version,
        tasks=tuple(
            model_pb2.Task.Name(task).removeprefix("TASK_").lower() for task in message.tasks
        ),
        family=message.family,
        dtype=message.dtype,
        source=message.source,
        max_source_length=message.max_source_length,
        source_vocabulary_size=message.source_vocabulary_size,
        max_inputs_per_request=message.max_inputs_per_request,
        is_batch_invariant=message.is_batch_invariant,
        labels=tuple(message.labels),
        generation=_generation(message.generation) if message.HasField("generation") else None,
        embedding=_embedding(message.embedding) if message.HasField("embedding") else None,
        attention=_attention(message.attention) if message.HasField("attention") else None,
        **to_head_settings(message),
    )


def _attention(message: model_pb2.AttentionSettings) -> AttentionSettings:
    return AttentionSettings(
        encoder_layer_count=message.encoder_layer_count,
        decoder_layer_count=message.decoder_layer_count,
        decoder_self_layer_count=message.decoder_self_layer_count,
        head_count=message.head_count,
        alignment_heads=tuple((one.layer, one.head) for one in message.alignment_heads),
        alignment_agreement=message.alignment_agreement,
    )


def _generation(message: model_pb2.GenerationSettings) -> GenerationSettings:
    has_bos, has_eos = (
        message.HasField("forced_bos_token_id"),
        message.HasField("forced_eos_token_id"),
    )
    return GenerationSettings(
        max_new_tokens=message.max_new_tokens,
        num_beams=message.num_beams,
        length_penalty=message.length_penalty,
        early_stopping=message.early_stopping,
        min_new_tokens=message.min_new_tokens,
        no_repeat_ngram_size=message.no_repeat_ngram_size,
        repetition_penalty=message.repetition_penalty,
        forced_bos_token_id=message.forced_bos_token_id if has_bos else None,
        forced_eos_token_id=message.forced_eos_token_id if has_eos else None,
        suppressed_token_ids=tuple(message.suppressed_token_ids),
        do_sample=message.do_sample,
        temperature=message.temperature,
        top_k=message.top_k,
        top_p=message.top_p,
        suppressed_sequences=tuple(tuple(one.token_ids) for one in message.suppressed_sequences),
        max_target_length=message.max_target_length,
        max_num_beams=message.max_num_beams,
        target_vocabulary_size=message.target_vocabulary_size,
        source_languages=tuple(message.source_languages),
        target_languages=tuple(message.target_languages),
        default_source_language=message.default_source_language,
        default_target_language=message.default_target_language,
    )


def _embedding(message: model_pb2.EmbeddingSettings) -> EmbeddingSettings:
    return EmbeddingSettings(
        embedding_size=message.embedding_size,
        pooling=message.pooling,
        normalize=message.normalize,
        prompts=dict(message.prompts),
        default_prompt_name=message.default_prompt_name,
        token_embedding_size=message.token_embedding_size,
        sparse=_sparse(message.sparse) if message.HasField("sparse") else None,
    )


def _sparse(message: model_pb2.SparseSettings) -> SparseSettings:
    has_limit = message.HasField("max_active_dims")
    return SparseSettings(
        activation=message.activation,
        max_active_dims=message.max_active_dims if has_limit else None,
    )
