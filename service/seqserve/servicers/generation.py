"""GenerationService: text in, hypotheses out, at once or piece by piece."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import DeadlineError
from seqserve.registry import Registry, ServedModel
from seqserve.search import make_search
from seqserve.sequence import (
    Answer,
    FinishReason,
    GenerateOptions,
    Generation,
    Hypothesis,
    Sequence,
)
from seqserve.servicers.languages import resolve_direction
from seqserve.servicers.options import resolve_options
from seqserve.servicers.requests import (
    Source,
    admitted,
    check_count,
    deadline,
    run,
    submitted,
    to_duration,
)
from seqserve.servicers.scoring import score_targets
from seqserve.servicers.sources import read_sources
from seqserve.servicers.stopping import make_stops
from seqserve.task_record import Task
from seqserve.tokenizer import TextStream
from seqserve.v1 import generation_pb2, generation_pb2_grpc, model_pb2

_FINISH_REASONS = {
    FinishReason.EOS: generation_pb2.FINISH_REASON_EOS,
    FinishReason.LENGTH: generation_pb2.FINISH_REASON_LENGTH,
    FinishReason.STOP_SEQUENCE: generation_pb2.FINISH_REASON_STOP_SEQUENCE,
}


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Answers with what the worker of the model generates."""

    def __init__(self, registry: Registry, config: ServerConfig) -> None:
        self._registry = registry
        self._config = config

    async def Generate(  # noqa: N802
        self, request: generation_pb2.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> generation_pb2.GenerateResponse:
        """Generates from all inputs of the request."""
        model = self._registry.find(request.model_name, request.model_version, Task.GENERATE)
        check_count(len(request.inputs), "inputs", self._config)
        fields = [f"inputs[{index}]" for index in range(len(request.inputs))]
        inputs = list(zip(request.inputs, fields, strict=True))
        option_layers = [(request.options, "options")] if request.HasField("options") else []
        with admitted(model, len(inputs)):
            prepared = await self._prepare(model, inputs, option_layers, request.truncate, context)
            answers = await run(model, [sequence for sequence, _ in prepared])
        return generation_pb2.GenerateResponse(
            results=[
                _result(model, answer, source, _options(sequence))
                for answer, (sequence, source) in zip(answers, prepared, strict=True)
            ],
            model=_reference(model),
        )

    async def GenerateStream(  # type: ignore[override]  # noqa: N802
        self,
        request: generation_pb2.GenerateStreamRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Generates from the one input, sending pieces as they are decided.

        A coroutine that writes, and no generator: the deadline must also end the wait for a caller
        that does not read.
        """
        try:
            async with asyncio.timeout_at(deadline(context, self._config)):
                await self._stream(request, context)
        except TimeoutError as error:
            raise DeadlineError(
                "the deadline passed before the whole stream was generated and read"
            ) from error

    async def ScoreTargets(  # noqa: N802
        self,
        request: generation_pb2.ScoreTargetsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> generation_pb2.ScoreTargetsResponse:
        """Scores all targets of the request."""
        model = self._registry.find(request.model_name, request.model_version, Task.GENERATE)
        results = await score_targets(model, request, self._config, deadline(context, self._config))
        return generation_pb2.ScoreTargetsResponse(results=results, model=_reference(model))

    async def _stream(
        self,
        request: generation_pb2.GenerateStreamRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        model = self._registry.find(request.model_name, request.model_version, Task.GENERATE)
        option_layers = [(request.options, "options")] if request.HasField("options") else []
        with admitted(model, 1) as places:
            ((sequence, source),) = await self._prepare(
                model, [(request.input, "input")], option_layers, request.truncate, context
            )
            arrivals: asyncio.Queue[list[int] | None] = asyncio.Queue()
            sequence.on_tokens = arrivals.put_nowait
            with submitted(model, [sequence]) as (future,):
                # A caller that reads slowly holds no place once the work is done.
                future.add_done_callback(lambda _: places.release())
                future.add_done_callback(lambda _: arrivals.put_nowait(None))
                await self._write(model, source, _options(sequence), arrivals, future, context)

    async def _write(
        self,
        model: ServedModel,
        source: Source,
        options: GenerateOptions,
        arrivals: asyncio.Queue[list[int] | None],
        future: asyncio.Future[Answer],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Sends the pieces of one sequence as they arrive, then its result."""
        stops = make_stops(options, model.target_tokenizer)
        stream = TextStream(model.target_tokenizer, None if stops is None else stops.trim)
        tokens = await arrivals.get()
        if tokens is None:  # what fails before its first token may be tried again
            await future
        # By itself, since gRPC forgets that it was sent when a write with it is cancelled.
        await context.send_initial_metadata(())
        reference: model_pb2.ModelReference | None = _reference(model)
        while tokens is not None:
            piece = generation_pb2.GeneratePiece(text=stream.push(tokens), token_ids=tokens)
            await context.write(generation_pb2.GenerateStreamResponse(piece=piece, model=reference))
            reference = None
            tokens = await arrivals.get()
        result = _result(model, await future, source, options)
        rest = stream.finish(result.hypotheses[0].text)
        if rest:
            piece = generation_pb2.GeneratePiece(text=rest)
            await context.write(generation_pb2.GenerateStreamResponse(piece=piece, model=reference))
        await context.write(generation_pb2.GenerateStreamResponse(result=result))

    async def _prepare(
        self,
        model: ServedModel,
        inputs: list[tuple[generation_pb2.GenerateInput, str]],
        option_layers: list[tuple[generation_pb2.GenerateOptions, str]],
        truncate: bool,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> list[tuple[Sequence, Source]]:
        """Checks and tokenizes inputs, and makes their sequences."""
        record = model.manifest.generation
        assert record is not None
        expires_at = deadline(context, self._config)
        options, directions = [], []
        for message, field in inputs:
            layers = list(option_layers)
            if message.HasField("options"):
                layers.append((message.options, f"{field}.options"))
            is_bos_chosen = any(layer.HasField("forced_bos_token_id") for layer, _ in layers)
            chosen = resolve_options(layers, record, self._config)
            direction = resolve_direction(message, field, record, is_bos_chosen=is_bos_chosen)
            if direction.forced_bos_token_id is not None:
                chosen = dataclasses.replace(
                    chosen, forced_bos_token_id=direction.forced_bos_token_id
                )
            options.append(chosen)
            directions.append(direction)
        sources = await read_sources(model, inputs, directions, self._config, truncate=truncate)
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        sequences = [
            Sequence(
                source_tokens=source.tokens,
                future=loop.create_future(),
                search=make_search(
                    chosen,
                    decoder_start_token_id=direction.decoder_start_token_id,
                    eos_token_id=record.eos_token_id,
                    stops=make_stops(chosen, model.target_tokenizer),
                ),
                deadline=expires_at,
                submitted_at=now,
            )
            for source, chosen, direction in zip(sources, options, directions, strict=True)
        ]
        return list(zip(sequences, sources, strict=True))


def _reference(model: ServedModel) -> model_pb2.ModelReference:
    return model_pb2.ModelReference(name=model.manifest.name, version=model.manifest.version)


def _options(sequence: Sequence) -> GenerateOptions:
    assert sequence.search is not None
    return sequence.search.options


def _result(
    model: ServedModel, answer: Answer, source: Source, options: GenerateOptions
) -> generation_pb2.GenerateResult:
    assert isinstance(answer, Generation)
    model.metrics.observe_answer(
        answer.timing, sum(len(hypothesis.tokens) for hypothesis in answer.hypotheses)
    )
    timing = answer.timing
    return generation_pb2.GenerateResult(
        hypotheses=[_hypothesis(model, hypothesis, options) for hypothesis in answer.hypotheses],
        source_token_count=len(source.tokens),
        truncated_token_count=source.num_truncated,
        timing=generation_pb2.GenerationTiming(
            queue_duration=to_duration(timing.queue_seconds),
            encode_duration=to_duration(timing.encode_seconds),
            decode_duration=to_duration(timing.decode_seconds),
        ),
    )


def _hypothesis(
    model: ServedModel, hypothesis: Hypothesis, options: GenerateOptions
) -> generation_pb2.Hypothesis:
    text = model.target_tokenizer.decode(list(hypothesis.tokens))
    stops = make_stops(options, model.target_tokenizer)
    if stops is not None and hypothesis.stop_sequence is not None:
        text = stops.cut(text, hypothesis.stop_sequence)
    return generation_pb2.Hypothesis(
        text=text,
        token_ids=hypothesis.tokens,
        score=hypothesis.score,
        token_log_probabilities=hypothesis.log_probabilities,
        finish_reason=_FINISH_REASONS[hypothesis.finish_reason],
        stop_sequence=hypothesis.stop_sequence or "",
    )
