"""GenerationService: text in, hypotheses out, at once or piece by piece."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from typing import Any, NamedTuple

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import DeadlineError
from seqserve.generate_options import GenerateOptions
from seqserve.registry import Registry
from seqserve.search import make_search
from seqserve.sequence import Answer, Sequence
from seqserve.served_model import ServedModel
from seqserve.servicers.alignment import Aligner, find_alignment
from seqserve.servicers.arrivals import Arrivals
from seqserve.servicers.attribution import attributed
from seqserve.servicers.caller import caller_of
from seqserve.servicers.deadline import Deadline, deadline_of, until
from seqserve.servicers.generation_results import to_result
from seqserve.servicers.input_check import check_cache, check_count
from seqserve.servicers.languages import Direction, find_bos_chooser, resolve_direction
from seqserve.servicers.options import resolve_options
from seqserve.servicers.requests import Source, admitted, resolve_priority, run, submitted
from seqserve.servicers.scoring import score_targets
from seqserve.servicers.sharing import sharing_of
from seqserve.servicers.sources import read_sources
from seqserve.servicers.stopping import check_target_prefix, make_stops
from seqserve.servicers.suppression import suppress
from seqserve.servicers.target_prefix import begin_with_prefix
from seqserve.servicers.target_texts import tokenize_targets
from seqserve.task_record import Task
from seqserve.text_stream import TextStream
from seqserve.time_limit import overdue_message
from seqserve.v1 import generation_pb2, generation_pb2_grpc, model_pb2


class _Prepared(NamedTuple):
    """An input that is ready to run."""

    sequence: Sequence
    source: Source
    direction: Direction


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Answers with what the worker of the model generates."""

    def __init__(self, registry: Registry, config: ServerConfig) -> None:
        self._registry = registry
        self._config = config

    async def Generate(  # noqa: N802
        self, request: generation_pb2.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> generation_pb2.GenerateResponse:
        """Generates from all inputs of the request."""
        deadline = deadline_of(context, self._config)
        model = self._registry.find(request.model_name, request.model_version, Task.GENERATE)
        check_count(len(request.inputs), "inputs", self._config)
        with admitted(model, len(request.inputs)):
            results = await self.answer(model, request, deadline, context)
        return generation_pb2.GenerateResponse(results=results, model=_reference(model))

    async def answer(
        self,
        model: ServedModel,
        request: generation_pb2.GenerateRequest,
        deadline: Deadline,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> list[generation_pb2.GenerateResult]:
        """Generates from all inputs of a request that has been admitted."""
        fields = [f"inputs[{index}]" for index in range(len(request.inputs))]
        inputs = list(zip(request.inputs, fields, strict=True))
        option_layers = [(request.options, "options")] if request.HasField("options") else []
        prepared = await self._prepare(model, inputs, option_layers, request, deadline, context)
        sequences = [one.sequence for one in prepared]
        with attributed(sequences, inputs, option_layers):
            answers = await run(model, sequences)
        results = [
            to_result(model, answer, one.source, _options(one.sequence))
            for answer, one in zip(answers, prepared, strict=True)
        ]
        if request.return_alignments:
            aligner = Aligner(model, self._config)
            async with until(deadline):
                for result, one, (message, _) in zip(results, prepared, inputs, strict=True):
                    await aligner.align(result, message, one.sequence, one.direction)
        return results

    async def GenerateStream(  # type: ignore[override]  # noqa: N802
        self,
        request: generation_pb2.GenerateStreamRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Generates from the one input, sending pieces as they are decided.

        A coroutine that writes, and no generator: the deadline must also end the wait for a caller
        that does not read.
        """
        deadline = deadline_of(context, self._config)
        try:
            async with asyncio.timeout_at(deadline.at):
                await self._stream(request, deadline, context)
        except TimeoutError as error:
            raise DeadlineError(
                overdue_message(
                    deadline.server_limit_seconds, "the whole stream was generated and read"
                )
            ) from error

    async def ScoreTargets(  # noqa: N802
        self,
        request: generation_pb2.ScoreTargetsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> generation_pb2.ScoreTargetsResponse:
        """Scores all targets of the request."""
        model = self._registry.find(request.model_name, request.model_version, Task.GENERATE)
        results = await score_targets(
            model,
            request,
            self._config,
            deadline_of(context, self._config),
            caller_of(context),
            sharing_of(context),
        )
        return generation_pb2.ScoreTargetsResponse(results=results, model=_reference(model))

    async def _stream(
        self,
        request: generation_pb2.GenerateStreamRequest,
        deadline: Deadline,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        model = self._registry.find(request.model_name, request.model_version, Task.GENERATE)
        inputs = [(request.input, "input")]
        option_layers = [(request.options, "options")] if request.HasField("options") else []
        with admitted(model, 1) as places:
            (prepared,) = await self._prepare(
                model, inputs, option_layers, request, deadline, context
            )
            sequence = prepared.sequence
            arrivals = Arrivals(model.metrics)
            sequence.on_tokens = arrivals.put
            with submitted(model, [sequence]) as (future,):
                if not request.return_alignments:
                    # A caller that reads slowly holds no place once the work is done.
                    future.add_done_callback(lambda _: places.release())
                future.add_done_callback(lambda _: arrivals.end())
                with attributed([sequence], inputs, option_layers):
                    await self._write(model, request, prepared, arrivals, future, context)

    async def _write(
        self,
        model: ServedModel,
        request: generation_pb2.GenerateStreamRequest,
        prepared: _Prepared,
        arrivals: Arrivals,
        future: asyncio.Future[Answer],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Sends the pieces of one sequence as they arrive, then its result."""
        options = _options(prepared.sequence)
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
        result = to_result(model, await future, prepared.source, options)
        rest = stream.finish(result.hypotheses[0].text)
        if rest:
            piece = generation_pb2.GeneratePiece(text=rest)
            await context.write(generation_pb2.GenerateStreamResponse(piece=piece, model=reference))
        if request.return_alignments:
            await Aligner(model, self._config).align(
                result, request.input, prepared.sequence, prepared.direction
            )
        await context.write(generation_pb2.GenerateStreamResponse(result=result))

    async def _prepare(
        self,
        model: ServedModel,
        inputs: list[tuple[generation_pb2.GenerateInput, str]],
        option_layers: list[tuple[generation_pb2.GenerateOptions, str]],
        request: generation_pb2.GenerateRequest | generation_pb2.GenerateStreamRequest,
        deadline: Deadline,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> list[_Prepared]:
        """Checks and tokenizes inputs, and makes their sequences."""
        record = model.manifest.generation
        assert record is not None
        if request.return_alignments:
            find_alignment(model)
        arrived_at, priority = time.monotonic(), resolve_priority(request.priority)
        caller, sharing = caller_of(context), sharing_of(context)
        own_layers = [
            [(message.options, f"{field}.options")] if message.HasField("options") else []
            for message, field in inputs
        ]
        texts = await tokenize_targets(
            model, inputs, [*option_layers, *itertools.chain(*own_layers)], self._config
        )
        options, directions = [], []
        for (message, field), own in zip(inputs, own_layers, strict=True):
            layers = [*option_layers, *own]
            chosen = resolve_options(layers, record, self._config)
            direction = resolve_direction(
                message, field, record, bos_chosen_by=find_bos_chooser(message, layers)
            )
            if direction.forced_bos_token_id is not None:
                chosen = dataclasses.replace(
                    chosen, forced_bos_token_id=direction.forced_bos_token_id
                )
            chosen = suppress(chosen, layers, texts, record)
            chosen = begin_with_prefix(
                chosen,
                message,
                field,
                texts,
                record,
                is_limit_chosen=any(layer.HasField("max_new_tokens") for layer, _ in layers),
            )
            check_target_prefix(chosen, model.target_tokenizer, field)
            options.append(chosen)
            directions.append(direction)
        sources = await read_sources(
            model, inputs, directions, self._config, truncate=request.truncate
        )
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
                deadline=deadline.at,
                server_limit_seconds=deadline.server_limit_seconds,
                stop_at=arrived_at + chosen.max_time,
                priority=priority,
                caller=caller,
                sharing=sharing,
                submitted_at=now,
            )
            for source, chosen, direction in zip(sources, options, directions, strict=True)
        ]
        for sequence, (_, field) in zip(sequences, inputs, strict=True):
            check_cache(model, sequence, field)
        if request.return_alignments:
            Aligner(model, self._config).check_least(sequences)
        return [_Prepared(*parts) for parts in zip(sequences, sources, directions, strict=True)]


def _reference(model: ServedModel) -> model_pb2.ModelReference:
    return model_pb2.ModelReference(name=model.manifest.name, version=model.manifest.version)


def _options(sequence: Sequence) -> GenerateOptions:
    assert sequence.search is not None
    return sequence.search.options
