"""AttentionService: a source and a target in, what attends to what out."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

from functools import partial
from typing import Any

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.explainer import Explanation, Question
from seqserve.registry import Registry
from seqserve.served_model import ServedModel
from seqserve.servicers.attention_choice import (
    AttentionChoice,
    Lengths,
    check_size,
    find_explainer,
    resolve_choice,
)
from seqserve.servicers.attention_messages import to_attention, to_tokens
from seqserve.servicers.attention_source import (
    AttendedSource,
    CheckLength,
    ids_of,
    place_ids,
    read_attended_source,
    read_attended_target,
)
from seqserve.servicers.caller import caller_of
from seqserve.servicers.deadline import Deadline, deadline_of, until
from seqserve.servicers.generation import GenerationServicer
from seqserve.servicers.languages import Direction, resolve_direction
from seqserve.servicers.offloading import off_loop
from seqserve.servicers.requests import admit_tokens, admitted, resolve_priority, to_duration
from seqserve.token_place import PlacedTokens, place_token
from seqserve.v1 import attention_pb2, attention_pb2_grpc, generation_pb2, model_pb2

_NO_TOKENS = PlacedTokens("", [])
_NUMBERS_PER_CHARACTER = 64
"""Weights that are reduced and packed in the time that a character is tokenized in."""


class AttentionServicer(attention_pb2_grpc.AttentionServiceServicer):
    """Answers with what the explain graph of the model computes."""

    def __init__(
        self, registry: Registry, config: ServerConfig, generation: GenerationServicer
    ) -> None:
        self._registry = registry
        self._config = config
        self._generation = generation

    async def Attend(  # noqa: N802
        self, request: attention_pb2.AttendRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> attention_pb2.AttendResponse:
        """Looks at one source and one target."""
        deadline = deadline_of(context, self._config)
        model = self._registry.find(request.model_name, request.model_version, None)
        async with until(deadline):
            return await self._attend(model, request, deadline, context)

    async def _attend(
        self,
        model: ServedModel,
        request: attention_pb2.AttendRequest,
        deadline: Deadline,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> attention_pb2.AttendResponse:
        if not request.HasField("input"):
            raise InvalidRequestError("input", "`input` must be set")
        explainer = find_explainer(model)
        priority, caller = resolve_priority(request.priority), caller_of(context)
        choice = resolve_choice(request, explainer.record)
        _check_target(request, model, choice)
        direction = None
        if (record := model.manifest.generation) is not None:
            direction = resolve_direction(request.input, "input", record, bos_chosen_by=None)
        with admitted(model, 1):

            def check(num_source: int, num_target: int = 1) -> None:
                lengths = Lengths(num_source, num_target)
                check_size(choice, explainer.record, lengths, self._config)

            # What is too much without a target need not be generated from.
            source = await read_attended_source(model, request, direction, self._config, check)
            target, read = _NO_TOKENS, tuple[int, ...]()
            if direction is not None:
                read = (direction.decoder_start_token_id,)
            if direction is not None and choice.has_target:
                target = await self._find_target(
                    model, request, direction, deadline, context, partial(check, len(source.tokens))
                )
                read += ids_of(target)[:-1]
            question = Question(
                source_tokens=source.tokens,
                token_types=source.token_types,
                decoder_tokens=read,
                heads={
                    kind: dict.fromkeys(layers, choice.heads)
                    for kind, layers in choice.layers.items()
                },
                priority=priority,
                caller=caller,
            )
            with admit_tokens(model, len(source.tokens)):
                explanation = await explainer.explain(question)
            return await _respond(model, choice, source, target, read, explanation)

    async def _find_target(
        self,
        model: ServedModel,
        request: attention_pb2.AttendRequest,
        direction: Direction,
        deadline: Deadline,
        context: grpc.aio.ServicerContext[Any, Any],
        check: CheckLength,
    ) -> PlacedTokens:
        """The target that is given, or what the model generates by greedy search."""
        if request.HasField("target"):
            return await read_attended_target(model, request.target, direction, self._config, check)
        message = request.input
        one = generation_pb2.GenerateInput(
            source_language=message.source_language, target_language=message.target_language
        )
        if message.WhichOneof("source") == "text":
            one.text = message.text
        else:
            one.token_ids.CopyFrom(message.token_ids)
        generate_request = generation_pb2.GenerateRequest(
            inputs=[one],
            options=generation_pb2.GenerateOptions(num_beams=1, do_sample=False),
            truncate=request.truncate,
            priority=request.priority,
        )
        (result,) = await self._generation.answer(model, generate_request, deadline, context)
        tokens = tuple(result.hypotheses[0].token_ids)
        check(len(tokens))
        return await place_ids(model.target_tokenizer, tokens)


def _check_target(
    request: attention_pb2.AttendRequest, model: ServedModel, choice: AttentionChoice
) -> None:
    """Refuses a target that would have no effect."""
    if not request.HasField("target"):
        return
    if model.manifest.generation is None:
        raise InvalidRequestError(
            "target", "`target` must not be set: the model has an encoder only, and writes nothing"
        )
    if not choice.has_target:
        raise InvalidRequestError(
            "target",
            "`target` has no effect on ATTENTION_KIND_ENCODER_SELF, the only one of `kinds`; leave "
            "it out, or ask for another kind",
        )


async def _respond(
    model: ServedModel,
    choice: AttentionChoice,
    source: AttendedSource,
    target: PlacedTokens,
    read: tuple[int, ...],
    explanation: Explanation,
) -> attention_pb2.AttendResponse:
    found = explanation.weights
    num_weights = sum(layer.size for layers in found.values() for layer in layers)
    attentions = await off_loop(
        num_weights // _NUMBERS_PER_CHARACTER,
        lambda: [to_attention(kind, choice, found[kind]) for kind in choice.layers],
        stage="postprocess",
    )
    inputs = target.spans[:-1]
    if target.spans:
        inputs = [place_token(model.target_tokenizer, read[0], None), *inputs]
    return attention_pb2.AttendResponse(
        attentions=attentions,
        source_tokens=to_tokens(source.placed.spans),
        target_tokens=to_tokens(target.spans),
        decoder_input_tokens=to_tokens(inputs),
        source_text=source.placed.text,
        target_text=target.text,
        pair_token_index=source.pair_start,
        truncated_token_count=source.num_truncated,
        attend_duration=to_duration(explanation.seconds),
        model=model_pb2.ModelReference(name=model.manifest.name, version=model.manifest.version),
    )
