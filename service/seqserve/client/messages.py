"""Arguments to request messages, reply messages to results: pure, and used by both clients."""

import numbers
from collections.abc import Iterable
from collections.abc import Sequence as Items
from typing import Any, Literal, TypedDict, get_args

import numpy as np
from google.protobuf import duration_pb2

from seqserve.client.results import (
    Embeddings,
    EmbeddingSettings,
    FinishReason,
    Generation,
    GenerationSettings,
    Hypothesis,
    ModelInfo,
    Piece,
    Timing,
    Token,
    TokenLogProbability,
)
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2, priority_pb2

_FINISH_REASONS: dict[int, FinishReason] = {
    generation_pb2.FINISH_REASON_EOS: "eos",
    generation_pb2.FINISH_REASON_LENGTH: "length",
    generation_pb2.FINISH_REASON_STOP_SEQUENCE: "stop_sequence",
    generation_pb2.FINISH_REASON_TIME: "time",
}


class GenerateOptions(TypedDict, total=False):
    """How to decode; what is absent is the model's default. The API describes each field."""

    max_new_tokens: int
    num_beams: int
    num_return_sequences: int
    length_penalty: float
    early_stopping: bool
    min_new_tokens: int
    no_repeat_ngram_size: int
    repetition_penalty: float
    forced_bos_token_id: int
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    seed: int
    suppressed_token_ids: Items[int]
    suppressed_sequences: Items["Source"]
    """Texts or token ids."""
    return_scores: bool
    return_token_log_probabilities: bool
    stop_sequences: Items[str]
    include_stop_sequence: bool
    max_time: float
    """Seconds."""
    top_log_probability_count: int
    return_alternatives: bool
    min_alternative_probability: float


Priority = Literal["", "low", "normal", "high"]
"""Whose turn comes first while inputs wait; empty for normal."""


Source = str | Items[int]
"""A text, or token ids."""


Languages = str | Items[str]
"""One language of all inputs, or one for each; empty for the model's default."""


def generate_request(
    inputs: Items[Source],
    model: str,
    version: str,
    truncate: bool,
    options: GenerateOptions,
    source_language: Languages = "",
    target_language: Languages = "",
    priority: Priority = "",
    target_prefix: Source | Items[Source] = "",
) -> generation_pb2.GenerateRequest:
    """A request for several inputs."""
    parts = zip(
        spread(source_language, len(inputs), "source_language"),
        spread(target_language, len(inputs), "target_language"),
        _spread_prefixes(target_prefix, len(inputs)),
        strict=True,
    )
    return generation_pb2.GenerateRequest(
        model_name=model,
        model_version=version,
        inputs=[_input(source, *part) for source, part in zip(inputs, parts, strict=True)],
        options=_options(options),
        truncate=truncate,
        priority=_priority(priority),
    )


def generate_stream_request(
    source: Source,
    model: str,
    version: str,
    truncate: bool,
    options: GenerateOptions,
    source_language: str = "",
    target_language: str = "",
    priority: Priority = "",
    target_prefix: Source = "",
) -> generation_pb2.GenerateStreamRequest:
    """A request for one streamed input."""
    return generation_pb2.GenerateStreamRequest(
        model_name=model,
        model_version=version,
        input=_input(source, source_language, target_language, target_prefix),
        options=_options(options),
        truncate=truncate,
        priority=_priority(priority),
    )


def embed_request(
    texts: Items[str],
    model: str,
    version: str,
    normalize: bool | None,
    truncate: bool,
    priority: Priority = "",
) -> encoding_pb2.EmbedRequest:
    """A request for embeddings."""
    return encoding_pb2.EmbedRequest(
        model_name=model,
        model_version=version,
        inputs=texts,
        normalize=normalize,
        truncate=truncate,
        priority=_priority(priority),
    )


def detokenize_request(
    token_ids: Items[Items[int]], model: str, version: str
) -> model_pb2.DetokenizeRequest:
    """A request for texts of token ids."""
    return model_pb2.DetokenizeRequest(
        model_name=model,
        model_version=version,
        sequences=[model_pb2.TokenSequence(token_ids=row) for row in token_ids],
    )


def _options(options: GenerateOptions) -> generation_pb2.GenerateOptions:
    """What is given, and nothing else."""
    if isinstance(options.get("stop_sequences"), str):
        raise TypeError('stop sequences must be a list: ["."]')
    plain: dict[str, Any] = {**options}
    message = generation_pb2.GenerateOptions()
    for sequence in plain.pop("suppressed_sequences", ()):
        entry = message.suppressed_sequences.add()
        if isinstance(sequence, str):
            entry.text = sequence
        else:
            entry.token_ids.values.extend(sequence)
    seconds = plain.pop("max_time", None)
    if seconds is not None:
        message.max_time.FromNanoseconds(round(seconds * 1e9))
    message.MergeFrom(generation_pb2.GenerateOptions(**plain))
    return message


def _priority(priority: Priority) -> priority_pb2.Priority.ValueType:
    if priority not in get_args(Priority):
        raise ValueError(f"`priority` must be low, normal or high, but is {priority!r}")
    return priority_pb2.Priority.Value(f"PRIORITY_{priority.upper() or 'UNSPECIFIED'}")


def _input(
    source: Source, source_language: str, target_language: str, target_prefix: Source
) -> generation_pb2.GenerateInput:
    message = generation_pb2.GenerateInput(
        source_language=source_language, target_language=target_language
    )
    set_source(message, source)
    if len(target_prefix):
        if isinstance(target_prefix, str):
            message.target_prefix_text = target_prefix
        else:
            message.target_prefix_token_ids.values.extend(target_prefix)
    return message


def set_source(
    message: (
        generation_pb2.GenerateInput | generation_pb2.ScoreTargetsInput | generation_pb2.Target
    ),
    text: Source,
) -> None:
    """Sets text or token ids of a message."""
    if isinstance(text, str):
        message.text = text
    else:
        message.token_ids.values.extend(text)


def spread(languages: Languages, num_inputs: int, name: str) -> list[str]:
    """The language of each input."""
    if isinstance(languages, str):
        return [languages] * num_inputs
    if len(languages) != num_inputs:
        raise ValueError(
            f"`{name}` must be one language or one for each input, but there are "
            f"{len(languages)} for {num_inputs} inputs"
        )
    return list(languages)


def _spread_prefixes(prefixes: Source | Items[Source], num_inputs: int) -> list[Source]:
    """The target prefix of each input."""
    if isinstance(prefixes, str):
        return [prefixes] * num_inputs
    listed = as_list(prefixes)
    if len(listed) != num_inputs:
        raise ValueError(
            "`target_prefix` must be one text or one text or list of token ids for each input, but "
            f"there are {len(listed)} for {num_inputs} inputs"
        )
    return listed


def as_list(inputs: Source | Items[Source]) -> list[Source]:
    """One text becomes a list of one; a sequence stays what it is."""
    if isinstance(inputs, str):
        return [inputs]
    listed = list(inputs)
    if listed and isinstance(listed[0], numbers.Integral):
        raise TypeError("token ids of one text must be wrapped in a list: [[5, 6, 7]]")
    return listed  # type: ignore[return-value]


def to_generation(message: generation_pb2.GenerateResult) -> Generation:
    """The result of one input."""
    return Generation(
        hypotheses=tuple(map(_hypothesis, message.hypotheses)),
        source_token_count=message.source_token_count,
        truncated_token_count=message.truncated_token_count,
        timing=to_timing(message.timing),
        seed=message.seed if message.HasField("seed") else None,
    )


def to_piece(message: generation_pb2.GeneratePiece) -> Piece:
    """The next tokens of a stream."""
    return Piece(message.text, tuple(message.token_ids))


def _hypothesis(message: generation_pb2.Hypothesis) -> Hypothesis:
    return Hypothesis(
        text=message.text,
        token_ids=tuple(message.token_ids),
        score=message.score if message.HasField("score") else None,
        token_log_probabilities=tuple(message.token_log_probabilities),
        finish_reason=_FINISH_REASONS.get(message.finish_reason, "eos"),
        stop_sequence=message.stop_sequence,
        prefix_token_count=message.prefix_token_count,
        top_log_probabilities=tuple(
            tuple(
                TokenLogProbability(one.token_id, one.piece, one.log_probability)
                for one in top.values
            )
            for top in message.top_log_probabilities
        ),
    )


def to_embeddings(message: encoding_pb2.EmbedResponse) -> Embeddings:
    """The embeddings of one call."""
    items = message.embeddings
    return Embeddings(
        vectors=np.array([item.values for item in items], np.float32),
        token_counts=tuple(item.token_count for item in items),
        truncated_token_counts=tuple(item.truncated_token_count for item in items),
        timings=tuple(
            Timing(_seconds(item.timing.queue_duration), _seconds(item.timing.encode_duration), 0.0)
            for item in items
        ),
    )


def to_tokens(message: model_pb2.TokenizeResponse) -> list[list[Token]]:
    """The tokens of each text."""
    return [
        [
            Token(token.id, token.text, token.start_offset, token.end_offset, token.is_special)
            for token in tokenization.tokens
        ]
        for tokenization in message.tokenizations
    ]


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
        generation=_generation(message.generation) if message.HasField("generation") else None,
        embedding=_embedding(message.embedding) if message.HasField("embedding") else None,
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
    )


def to_timing(message: generation_pb2.GenerationTiming) -> Timing:
    """Where the time of one input went."""
    return Timing(
        _seconds(message.queue_duration),
        _seconds(message.encode_duration),
        _seconds(message.decode_duration),
    )


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.ToNanoseconds() / 1e9
