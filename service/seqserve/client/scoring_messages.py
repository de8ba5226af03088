"""Scores of given targets: arguments to the request, its reply to results."""

from collections.abc import Sequence as Items

from seqserve.client.arguments import (
    Languages,
    Priority,
    Source,
    as_list,
    set_source,
    spread,
    to_priority,
)
from seqserve.client.results import ScoredToken, Scoring, TargetScore
from seqserve.client.timing_messages import to_generation_timing
from seqserve.v1 import generation_pb2

Targets = Source | Items[Source]
"""One text, or several texts or lists of token ids."""


def score_request(
    inputs: Source | Items[Source],
    targets: Targets | Items[Targets],
    model: str,
    version: str,
    truncate: bool,
    source_language: Languages = "",
    target_language: Languages = "",
    priority: Priority = "",
) -> generation_pb2.ScoreTargetsRequest:
    """A request for the scores of targets: those of the one text, or an entry for each input."""
    sources = as_list(inputs)
    entries = [targets] if isinstance(inputs, str) else list(targets)
    if len(entries) != len(sources):
        raise ValueError(
            f"`targets` must have one entry for each input, but there are {len(entries)} for "
            f"{len(sources)} inputs"
        )
    languages = zip(
        spread(source_language, len(sources), "source_language"),
        spread(target_language, len(sources), "target_language"),
        strict=True,
    )
    messages = []
    for source, entry, (source_code, target_code) in zip(sources, entries, languages, strict=True):
        message = generation_pb2.ScoreTargetsInput(
            source_language=source_code, target_language=target_code
        )
        set_source(message, source)
        for target in as_list(entry):  # type: ignore[arg-type]
            set_source(message.targets.add(), target)
        messages.append(message)
    return generation_pb2.ScoreTargetsRequest(
        model_name=model,
        model_version=version,
        inputs=messages,
        truncate=truncate,
        priority=to_priority(priority),
    )


def to_scoring(message: generation_pb2.ScoreTargetsResult) -> Scoring:
    """The scores of the targets of one input."""
    return Scoring(
        scores=tuple(
            TargetScore(
                tokens=tuple(
                    ScoredToken(token.id, token.text, token.log_probability)
                    for token in score.tokens
                ),
                total_log_probability=score.total_log_probability,
                mean_log_probability=score.mean_log_probability,
            )
            for score in message.scores
        ),
        source_token_count=message.source_token_count,
        truncated_token_count=message.truncated_token_count,
        timing=to_generation_timing(message.timing),
    )
