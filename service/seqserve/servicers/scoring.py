"""ScoreTargets: targets to sequences that are given them, log-probabilities to messages."""

import asyncio
import dataclasses
import time
from collections.abc import Iterator

from seqserve.config import ServerConfig
from seqserve.search_state import Hypothesis
from seqserve.sequence import Answer, Generation, Sequence, Timing
from seqserve.served_model import ServedModel
from seqserve.servicers.deadline import Deadline
from seqserve.servicers.generation_results import to_timing
from seqserve.servicers.input_check import check_cache
from seqserve.servicers.languages import Direction, resolve_direction
from seqserve.servicers.requests import Source, admitted, resolve_priority, run
from seqserve.servicers.sources import read_sources
from seqserve.servicers.targets import check_counts, read_targets
from seqserve.sharing import Sharing
from seqserve.target_scoring import TargetScoring
from seqserve.v1 import generation_pb2


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """Targets of one input that share a sequence."""

    input_index: int
    target_indices: list[int]
    sequence: Sequence


async def score_targets(
    model: ServedModel,
    request: generation_pb2.ScoreTargetsRequest,
    config: ServerConfig,
    deadline: Deadline,
    caller: str,
    sharing: Sharing | None,
) -> list[generation_pb2.ScoreTargetsResult]:
    """Scores all targets of a request.

    Raises:
        InvalidRequestError: Something in it is wrong.
        OverloadedError: Too much is outstanding.
    """
    inputs, record = request.inputs, model.manifest.generation
    assert record is not None
    priority = resolve_priority(request.priority)
    check_counts(inputs, config)
    num_sequences = sum(-(-len(one.targets) // config.max_num_beams) for one in inputs)
    with admitted(model, num_sequences):
        pairs = [(one, f"inputs[{index}]") for index, one in enumerate(inputs)]
        directions = [
            resolve_direction(message, field, record, bos_chosen_by=None)
            for message, field in pairs
        ]
        sources = await read_sources(model, pairs, directions, config, truncate=request.truncate)
        targets = await read_targets(model, inputs, directions, config)
        parts = [
            part
            for index, (source, direction) in enumerate(zip(sources, directions, strict=True))
            for part in _split(
                model, index, source, targets[index], direction, config.max_num_beams
            )
        ]
        for part in parts:
            sequence = part.sequence
            sequence.deadline = deadline.at
            sequence.server_limit_seconds = deadline.server_limit_seconds
            sequence.priority, sequence.caller = priority, caller
            sequence.sharing = sharing
        answers = await run(model, [part.sequence for part in parts])
    return _to_results(model, sources, targets, parts, answers)


def _split(
    model: ServedModel,
    input_index: int,
    source: Source,
    targets: list[tuple[int, ...]],
    direction: Direction,
    max_rows: int,
) -> Iterator[_Part]:
    """Yields sequences of at most ``max_rows`` targets, those of like lengths together."""
    record = model.manifest.generation
    assert record is not None
    order = sorted(range(len(targets)), key=lambda index: len(targets[index]))
    loop, now = asyncio.get_running_loop(), time.monotonic()
    for start in range(0, len(order), max_rows):
        indices = order[start : start + max_rows]
        search = TargetScoring(
            [targets[index] for index in indices],
            direction.decoder_start_token_id,
            record.eos_token_id,
        )
        sequence = Sequence(
            source_tokens=source.tokens,
            future=loop.create_future(),
            search=search,
            submitted_at=now,
        )
        field = f"inputs[{input_index}].targets"
        check_cache(model, sequence, field, remedy="give fewer targets or shorter ones")
        yield _Part(input_index, indices, sequence)


def _to_results(
    model: ServedModel,
    sources: list[Source],
    targets: list[list[tuple[int, ...]]],
    parts: list[_Part],
    answers: list[Answer],
) -> list[generation_pb2.ScoreTargetsResult]:
    scored: list[dict[int, Hypothesis]] = [{} for _ in sources]
    timings: dict[int, Timing] = {}
    for part, answer in zip(parts, answers, strict=True):
        assert isinstance(answer, Generation)
        model.metrics.observe_answer(answer.timing, 0)
        scored[part.input_index].update(zip(part.target_indices, answer.hypotheses, strict=True))
        longest = timings.setdefault(part.input_index, answer.timing)
        timings[part.input_index] = max(longest, answer.timing, key=_total_seconds)
    return [
        generation_pb2.ScoreTargetsResult(
            scores=[
                _to_score(model, scored[index][position]) for position in range(len(targets[index]))
            ],
            source_token_count=len(source.tokens),
            truncated_token_count=source.num_truncated,
            timing=to_timing(timings[index]),
        )
        for index, source in enumerate(sources)
    ]


def _total_seconds(timing: Timing) -> float:
    return timing.queue_seconds + timing.encode_seconds + timing.decode_seconds


def _to_score(model: ServedModel, hypothesis: Hypothesis) -> generation_pb2.TargetScore:
    total, log_probabilities = hypothesis.score, hypothesis.log_probabilities
    assert total is not None
    assert log_probabilities is not None
    return generation_pb2.TargetScore(
        tokens=[
            generation_pb2.ScoredToken(
                id=token,
                text=model.target_tokenizer.entry(token),
                log_probability=log_probability,
            )
            for token, log_probability in zip(hypothesis.tokens, log_probabilities, strict=True)
        ],
        total_log_probability=total,
        mean_log_probability=total / len(hypothesis.tokens),
        token_count=len(hypothesis.tokens),
    )
