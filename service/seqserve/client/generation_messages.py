"""Generation: arguments to requests, their replies to results."""

from collections.abc import Sequence as Items
from typing import Any, TypedDict

from seqserve.client.alignment_messages import to_alignment
from seqserve.client.arguments import (
    Languages,
    Priority,
    Source,
    as_list,
    set_source,
    spread,
    to_priority,
)
from seqserve.client.results import FinishReason, Generation, Hypothesis, Piece, TokenLogProbability
from seqserve.client.timing_messages import to_generation_timing
from seqserve.v1 import generation_pb2

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
    suppressed_sequences: Items[Source]
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


def generate_request(
    inputs: Source | Items[Source],
    model: str,
    version: str,
    truncate: bool,
    options: GenerateOptions,
    source_language: Languages = "",
    target_language: Languages = "",
    priority: Priority = "",
    target_prefix: Source | Items[Source] = "",
    return_alignments: bool = False,
) -> generation_pb2.GenerateRequest:
    """A request for one text or several inputs."""
    sources = as_list(inputs)
    parts = zip(
        spread(source_language, len(sources), "source_language"),
        spread(target_language, len(sources), "target_language"),
        _spread_prefixes(target_prefix, len(sources)),
        strict=True,
    )
    return generation_pb2.GenerateRequest(
        model_name=model,
        model_version=version,
        inputs=[_input(source, *part) for source, part in zip(sources, parts, strict=True)],
        options=_options(options),
        truncate=truncate,
        priority=to_priority(priority),
        return_alignments=return_alignments,
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
    return_alignments: bool = False,
) -> generation_pb2.GenerateStreamRequest:
    """A request for one streamed input."""
    return generation_pb2.GenerateStreamRequest(
        model_name=model,
        model_version=version,
        input=_input(source, source_language, target_language, target_prefix),
        options=_options(options),
        truncate=truncate,
        priority=to_priority(priority),
        return_alignments=return_alignments,
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


def to_generation(message: generation_pb2.GenerateResult) -> Generation:
    """The result of one input."""
    return Generation(
        hypotheses=tuple(map(_hypothesis, message.hypotheses)),
        source_token_count=message.source_token_count,
        truncated_token_count=message.truncated_token_count,
        timing=to_generation_timing(message.timing),
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
        alignment=to_alignment(message.alignment) if message.HasField("alignment") else None,
    )
