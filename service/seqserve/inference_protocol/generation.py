"""Generation: texts or token ids to targets, at once or piece by piece."""

# The types of enum values exist only in type stubs.
from __future__ import annotations

from collections.abc import Awaitable, Callable
from collections.abc import Sequence as Items
from typing import Any

import numpy as np

from seqserve.errors import InvalidRequestError
from seqserve.inference_protocol.parameter import set_fields
from seqserve.inference_protocol.schedule import TimedContext
from seqserve.inference_protocol.signature import (
    Call,
    Input,
    Output,
    Signature,
    Tensors,
    stack,
    stack_texts,
)
from seqserve.inference_protocol.token_rows import TOKEN_INPUTS, check_shape, read_token_rows
from seqserve.served_model import ServedModel
from seqserve.v1 import generation_pb2

_LANGUAGES = ("source_language", "target_language")
_EXTRAS = tuple(Input(name, "BYTES", (-1,)) for name in (*_LANGUAGES, "target_prefix"))
_FLAGS = {
    "score": "return_scores",
    "token_log_probabilities": "return_token_log_probabilities",
}
_TOP = "`top_log_probability_count`"
_REASON_PREFIX = "FINISH_REASON_"

WriteTensors = Callable[[Tensors, bool], Awaitable[None]]
"""Takes the tensors of one response, and whether it is the last."""


def generation_signatures(model: ServedModel) -> list[Signature]:
    """With texts or with token ids.

    Shapes are those of one hypothesis for each input; of several there is an axis for them behind
    the first where the output is one of hypotheses.
    """
    options = {field.name for field in generation_pb2.GenerateOptions.DESCRIPTOR.fields}
    parameters = (*sorted(options - set(_FLAGS.values())), *_LANGUAGES, "truncate")
    outputs = (
        Output("text", "BYTES", (-1,)),
        Output("score", "FP32", (-1,), flag=_FLAGS["score"]),
        Output("token_count", "INT32", (-1,)),
        Output("finish_reason", "BYTES", (-1,)),
        Output("stop_sequence", "BYTES", (-1,), is_default=False),
        Output("hypothesis_count", "INT32", (-1,)),
        Output("source_token_count", "INT32", (-1,)),
        Output("truncated_token_count", "INT32", (-1,)),
        Output("seed", "INT64", (-1,), needs="`do_sample`"),
        Output("token_ids", "INT64", (-1, -1), is_default=False),
        Output(
            "token_log_probabilities",
            "FP32",
            (-1, -1),
            is_default=False,
            flag=_FLAGS["token_log_probabilities"],
        ),
        Output("top_token_ids", "INT64", (-1, -1, -1), needs=_TOP),
        Output("top_log_probabilities", "FP32", (-1, -1, -1), needs=_TOP),
    )
    return [
        Signature(inputs, outputs, parameters, generate)
        for inputs in (
            (Input("text", "BYTES", (-1,), is_required=True), *_EXTRAS),
            (*TOKEN_INPUTS, *_EXTRAS),
        )
    ]


async def generate(call: Call) -> Tensors:
    """Generates from all inputs of a request."""
    manifest = call.model.manifest
    request = generation_pb2.GenerateRequest(
        model_name=manifest.name,
        model_version=manifest.version,
        inputs=_read_inputs(call),
        priority=call.priority,
    )
    set_fields(request, call.parameters)
    _set_options(request, call)
    response = await call.services.generation.Generate(request, call.context)
    return _to_tensors(response.results, request.options)


async def generate_stream(call: Call, write: WriteTensors) -> None:
    """Generates from the one input of a request, writing pieces as they are decided.

    The texts of all responses joined are the target; what is known at its end comes with the last.

    Raises:
        InvalidRequestError: There is more than one input or target.
    """
    inputs = _read_inputs(call)
    if len(inputs) != 1:
        raise InvalidRequestError(
            "text",
            f"a request of a stream must have one input, but has {len(inputs)}; send one request "
            "for each, or call ModelInfer",
        )
    manifest = call.model.manifest
    request = generation_pb2.GenerateStreamRequest(
        model_name=manifest.name,
        model_version=manifest.version,
        input=inputs[0],
        priority=call.priority,
    )
    set_fields(request, call.parameters)
    _set_options(request, call)
    if request.options.num_return_sequences > 1:
        raise InvalidRequestError(
            "num_return_sequences",
            "`num_return_sequences` must be 1 in a stream, but is "
            f"{request.options.num_return_sequences}; call ModelInfer for several",
        )
    context: Any = _StreamContext(call.context, write, request.options)
    await call.services.generation.GenerateStream(request, context)


class _StreamContext(TimedContext):
    """Takes what GenerateStream writes, and writes it as tensors."""

    def __init__(
        self, context: Any, write: WriteTensors, options: generation_pb2.GenerateOptions
    ) -> None:
        super().__init__(context, None)
        self._write = write
        self._options = options

    async def send_initial_metadata(self, metadata: object) -> None:
        """That of the stream is sent with its first response."""

    async def write(self, message: generation_pb2.GenerateStreamResponse) -> None:
        """Writes a piece, or the end."""
        if message.WhichOneof("event") == "piece":
            piece = message.piece
            await self._write(
                {
                    "text": stack_texts([piece.text], 1),
                    "token_ids": stack([piece.token_ids], 2, np.int64),
                },
                False,
            )
            return
        tensors = _to_tensors([message.result], self._options)
        # The pieces had them.
        tensors["text"] = stack_texts([""], 1)
        tensors["token_ids"] = stack([[]], 2, np.int64)
        await self._write(tensors, True)


def _read_inputs(call: Call) -> list[generation_pb2.GenerateInput]:
    inputs = [generation_pb2.GenerateInput(text=text) for text in call.texts("text")]
    if "input_ids" in call.tensors:
        inputs = [
            generation_pb2.GenerateInput(token_ids=generation_pb2.TokenIds(values=row))
            for row in read_token_rows(call.tensors)
        ]
    for name in _LANGUAGES:
        parameter = call.parameters.get(name)
        if parameter is not None and not isinstance(parameter, str):
            raise InvalidRequestError(name, f"`{name}` must be a text, but is {parameter}")
        if parameter is not None and name in call.tensors:
            raise InvalidRequestError(
                name, f"`{name}` is given as input and as parameter; leave one of them out"
            )
        codes = [parameter] * len(inputs) if parameter else _per_input(call, name, len(inputs))
        for one, code in zip(inputs, codes, strict=False):
            setattr(one, name, code)
    for one, prefix in zip(inputs, _per_input(call, "target_prefix", len(inputs)), strict=False):
        if prefix:
            one.target_prefix_text = prefix
    return inputs


def _per_input(call: Call, name: str, num_inputs: int) -> list[str]:
    """The texts of a tensor beside the inputs; none if it is not given."""
    if name in call.tensors:
        check_shape(name, call.tensors[name].shape, (num_inputs,))
    return call.texts(name)


def _set_options(
    request: generation_pb2.GenerateRequest | generation_pb2.GenerateStreamRequest, call: Call
) -> None:
    options = generation_pb2.GenerateOptions()
    set_fields(options, call.parameters)
    for output, flag in _FLAGS.items():
        if output in call.asked:
            setattr(options, flag, True)
    if options.ListFields():
        request.options.CopyFrom(options)


def _to_tensors(
    results: Items[generation_pb2.GenerateResult], options: generation_pb2.GenerateOptions
) -> Tensors:
    """The tensors of results; of one hypothesis each without the axis of hypotheses."""
    num_sequences = options.num_return_sequences or 1
    rows = [list(result.hypotheses) for result in results]
    for row in rows:  # where there are fewer
        row += [generation_pb2.Hypothesis()] * (num_sequences - len(row))
    tensors: Tensors = {
        "text": stack_texts([[one.text for one in row] for row in rows], 2),
        "token_count": stack([[len(one.token_ids) for one in row] for row in rows], 2, np.int32),
        "finish_reason": stack_texts(
            [[_to_reason(one.finish_reason) for one in row] for row in rows], 2
        ),
        "stop_sequence": stack_texts([[one.stop_sequence for one in row] for row in rows], 2),
        "token_ids": stack([[one.token_ids for one in row] for row in rows], 3, np.int64),
    }
    hypotheses = [one for result in results for one in result.hypotheses]
    if options.return_scores or any(one.HasField("score") for one in hypotheses):
        tensors["score"] = stack(
            [[one.score if one.HasField("score") else np.nan for one in row] for row in rows],
            2,
            np.float32,
        )
    if options.return_token_log_probabilities:
        tensors["token_log_probabilities"] = stack(
            [[one.token_log_probabilities for one in row] for row in rows], 3, np.float32
        )
    if options.top_log_probability_count:
        tops = [[[top.values for top in one.top_log_probabilities] for one in row] for row in rows]
        tensors["top_token_ids"] = _stack_tops(tops, "token_id", np.int64)
        tensors["top_log_probabilities"] = _stack_tops(tops, "log_probability", np.float32)
    if num_sequences == 1:
        tensors = {name: values[:, 0] for name, values in tensors.items()}
    if all(result.HasField("seed") for result in results):
        tensors["seed"] = stack([result.seed for result in results], 1, np.int64)
    counts = [len(result.hypotheses) for result in results]
    tensors["hypothesis_count"] = stack(counts, 1, np.int32)
    for name in ("source_token_count", "truncated_token_count"):
        tensors[name] = stack([getattr(result, name) for result in results], 1, np.int32)
    return tensors


def _stack_tops(tops: Any, name: str, dtype: Any) -> Any:
    values = [
        [[[getattr(one, name) for one in top] for top in hypothesis] for hypothesis in row]
        for row in tops
    ]
    return stack(values, 4, dtype)


def _to_reason(reason: generation_pb2.FinishReason.ValueType) -> str:
    """The name of a reason as the client has it; empty where there is no hypothesis."""
    name = generation_pb2.FinishReason.Name(reason).removeprefix(_REASON_PREFIX).lower()
    return "" if name == "unspecified" else name
