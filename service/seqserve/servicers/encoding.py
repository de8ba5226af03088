"""EncodingService: text in, embeddings out."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import numpy as np

from seqserve.config import ServerConfig
from seqserve.registry import Registry
from seqserve.sequence import EmbeddingVector, Sequence
from seqserve.servicers.caller import caller_of
from seqserve.servicers.deadline import deadline_of
from seqserve.servicers.requests import (
    Source,
    admitted,
    check_count,
    check_text,
    resolve_priority,
    run,
    to_duration,
    tokenize,
)
from seqserve.task_record import Task
from seqserve.v1 import encoding_pb2, encoding_pb2_grpc, model_pb2


class EncodingServicer(encoding_pb2_grpc.EncodingServiceServicer):
    """Answers with what the worker of the model computes."""

    def __init__(self, registry: Registry, config: ServerConfig) -> None:
        self._registry = registry
        self._config = config

    async def Embed(  # noqa: N802
        self, request: encoding_pb2.EmbedRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> encoding_pb2.EmbedResponse:
        """Embeds all texts of the request."""
        model = self._registry.find(request.model_name, request.model_version, Task.EMBED)
        record = model.manifest.embedding
        assert record is not None
        check_count(len(request.inputs), "inputs", self._config)
        priority, caller = resolve_priority(request.priority), caller_of(context)
        deadline = deadline_of(context, self._config)
        fields = [f"inputs[{index}]" for index in range(len(request.inputs))]
        with admitted(model, len(request.inputs)):
            for text, field in zip(request.inputs, fields, strict=True):
                check_text(text, field, self._config)
            sources = await tokenize(model, request.inputs, fields, truncate=request.truncate)
            loop, now = asyncio.get_running_loop(), time.monotonic()
            sequences = [
                Sequence(
                    source_tokens=source.tokens,
                    future=loop.create_future(),
                    deadline=deadline.at,
                    server_limit_seconds=deadline.server_limit_seconds,
                    priority=priority,
                    caller=caller,
                    submitted_at=now,
                )
                for source in sources
            ]
            answers = await run(model, sequences)
        is_normalized = request.normalize if request.HasField("normalize") else record.normalize
        embeddings = []
        for answer, source in zip(answers, sources, strict=True):
            assert isinstance(answer, EmbeddingVector)
            model.metrics.observe_answer(answer.timing, 0)
            embeddings.append(_embedding(answer, source, is_normalized=is_normalized))
        reference = model_pb2.ModelReference(
            name=model.manifest.name, version=model.manifest.version
        )
        return encoding_pb2.EmbedResponse(embeddings=embeddings, model=reference)


def _embedding(
    answer: EmbeddingVector, source: Source, *, is_normalized: bool
) -> encoding_pb2.Embedding:
    values = answer.values.astype(np.float64)
    if is_normalized:
        # In float64, whose squares of float32 numbers neither overflow nor vanish. The same floor
        # as torch.nn.functional.normalize: a zero vector stays zero.
        values /= max(float(np.linalg.norm(values)), 1e-12)
    return encoding_pb2.Embedding(
        values=values.tolist(),
        token_count=len(source.tokens),
        truncated_token_count=source.num_truncated,
        timing=encoding_pb2.EncodingTiming(
            queue_duration=to_duration(answer.timing.queue_seconds),
            encode_duration=to_duration(answer.timing.encode_seconds),
        ),
    )
