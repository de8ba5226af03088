"""When and for whom the sequences of an encoder request run."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterable
from typing import Any

import grpc

from seqserve.config import ServerConfig
from seqserve.passage import Passage
from seqserve.sequence import EncoderOutput, Priority, Sequence, Timing
from seqserve.served_model import ServedModel
from seqserve.servicers.caller import caller_of
from seqserve.servicers.deadline import Deadline, deadline_of
from seqserve.servicers.requests import resolve_priority, run, to_duration
from seqserve.servicers.sharing import sharing_of
from seqserve.sharing import Sharing
from seqserve.v1 import encoding_pb2


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """What decides when the sequences of a request run, and whether they need to."""

    deadline: Deadline
    priority: Priority
    caller: str
    sharing: Sharing | None


def take_turn(
    priority: int, context: grpc.aio.ServicerContext[Any, Any], config: ServerConfig
) -> Turn:
    """Reads priority, deadline and caller of a request, and what it shares.

    Raises:
        InvalidRequestError: The priority, the caller's name or what it says of sharing is wrong.
    """
    return Turn(
        deadline_of(context, config),
        resolve_priority(priority),
        caller_of(context),
        sharing_of(context),
    )


async def predict(
    model: ServedModel, passages: Iterable[Passage], turn: Turn, *, returns_states: bool = False
) -> list[EncoderOutput]:
    """Runs passages through a model; the answers are in their order."""
    loop, now = asyncio.get_running_loop(), time.monotonic()
    record = model.manifest.prediction
    has_types = record is not None and record.has_token_types
    sequences = [
        Sequence(
            source_tokens=passage.tokens,
            token_types=passage.types if has_types else (),
            future=loop.create_future(),
            returns_states=returns_states,
            deadline=turn.deadline.at,
            server_limit_seconds=turn.deadline.server_limit_seconds,
            priority=turn.priority,
            caller=turn.caller,
            sharing=turn.sharing,
            submitted_at=now,
        )
        for passage in passages
    ]
    answers: list[EncoderOutput] = []
    for answer in await run(model, sequences):
        assert isinstance(answer, EncoderOutput)
        model.metrics.observe_answer(answer.timing, 0)
        answers.append(answer)
    return answers


def slowest(answers: Iterable[EncoderOutput]) -> Timing:
    """The timing of the answer that took longest; one that was kept took no time at all."""
    return max(
        (answer.timing for answer in answers),
        key=lambda timing: (not timing.is_cached, timing.queue_seconds + timing.encode_seconds),
    )


def to_timing(timing: Timing) -> encoding_pb2.EncodingTiming:
    """Where the time went, as a message."""
    return encoding_pb2.EncodingTiming(
        queue_duration=to_duration(timing.queue_seconds),
        encode_duration=to_duration(timing.encode_seconds),
        is_cached=timing.is_cached,
    )
