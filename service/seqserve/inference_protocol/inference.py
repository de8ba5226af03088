"""One request of tensors: read, answered by the servicer of the model's task, written."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from seqserve.errors import InvalidRequestError, ModelNotFoundError, UnsupportedTaskError
from seqserve.inference_protocol.classification import classification_signatures
from seqserve.inference_protocol.embedding import embedding_signatures
from seqserve.inference_protocol.error_path import renamed
from seqserve.inference_protocol.generation import generate_stream, generation_signatures
from seqserve.inference_protocol.mask_filling import mask_filling_signatures
from seqserve.inference_protocol.parameter import (
    check_names,
    read_flag,
    read_parameters,
    shorten,
)
from seqserve.inference_protocol.reranking import reranking_signatures
from seqserve.inference_protocol.schedule import (
    TimedContext,
    check_sequence,
    take_priority,
    take_timeout,
)
from seqserve.inference_protocol.signature import (
    Call,
    Services,
    Signature,
    Tensors,
    check_outputs,
    choose_signature,
    select_outputs,
)
from seqserve.inference_protocol.tensor_reading import read_tensors
from seqserve.inference_protocol.tensor_writing import to_response
from seqserve.inference_protocol.token_classification import token_classification_signatures
from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.registry import Registry
from seqserve.served_model import ServedModel
from seqserve.task_record import Task

_SIGNATURES: dict[Task, Callable[[ServedModel], list[Signature]]] = {
    Task.GENERATE: generation_signatures,
    Task.EMBED: embedding_signatures,
    Task.CLASSIFY: classification_signatures,
    Task.CLASSIFY_TOKENS: token_classification_signatures,
    Task.RERANK: reranking_signatures,
    Task.FILL_MASK: mask_filling_signatures,
}
_SCHEDULING = ("priority", "timeout")
FINAL_RESPONSE = "triton_final_response"
_EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
"""Whether the end is to be marked by a response, which it is in every stream of ours."""

WriteResponse = Callable[[open_inference_pb2.ModelInferResponse], Awaitable[None]]


def signatures_of(model: ServedModel) -> list[Signature]:
    """The ways to call a model.

    Raises:
        UnsupportedTaskError: There is none in this protocol.
    """
    task = model.manifest.tasks[0]  # a model has one
    if task not in _SIGNATURES:
        raise UnsupportedTaskError(
            f"model {model.manifest.name!r} can {task}, which the Open Inference Protocol has no "
            "tensors for here; call it by seqserve.v1"
        )
    return _SIGNATURES[task](model)


class Inference:
    """Answers requests of tensors."""

    def __init__(self, registry: Registry, services: Services) -> None:
        self._registry = registry
        self._services = services

    def is_decoupled(self, request: open_inference_pb2.ModelInferRequest) -> bool:
        """Whether a request of a stream is answered piece by piece."""
        try:
            model = self._registry.find(request.model_name, request.model_version, None)
        except (InvalidRequestError, ModelNotFoundError):
            return False
        return Task.GENERATE in model.manifest.tasks

    async def infer(
        self, request: open_inference_pb2.ModelInferRequest, context: Any
    ) -> open_inference_pb2.ModelInferResponse:
        """Answers a request at once.

        Raises:
            SeqserveError: As the servicer of the task does.
        """
        call, signature = self._read(request, context, is_stream=False)
        with renamed():
            tensors = await signature.answer(call)
        return _respond(request, call, signature, tensors)

    async def infer_stream(
        self, request: open_inference_pb2.ModelInferRequest, context: Any, write: WriteResponse
    ) -> None:
        """Answers a request of a stream.

        Raises:
            SeqserveError: As the servicer of the task does.
        """
        call, signature = self._read(request, context, is_stream=True)
        if Task.GENERATE not in call.model.manifest.tasks:
            with renamed():
                tensors = await signature.answer(call)
            await write(_respond(request, call, signature, tensors))
            return

        async def write_tensors(tensors: Tensors, is_final: bool) -> None:
            response = _respond(request, call, signature, tensors, is_piece=not is_final)
            if is_final or response.outputs:
                response.parameters[FINAL_RESPONSE].bool_param = is_final
                await write(response)

        with renamed():
            await generate_stream(call, write_tensors)

    def _read(
        self, request: open_inference_pb2.ModelInferRequest, context: Any, *, is_stream: bool
    ) -> tuple[Call, Signature]:
        model = self._registry.find(request.model_name, request.model_version, None)
        signature = choose_signature(signatures_of(model), [one.name for one in request.inputs])
        parameters = read_parameters(request.parameters)
        check_sequence(parameters)
        if is_stream:
            read_flag(parameters, _EMPTY_FINAL_RESPONSE)
            parameters.pop(_EMPTY_FINAL_RESPONSE, None)
        flags = sorted({one.flag for one in signature.outputs if one.flag})
        check_names(parameters, (*signature.parameters, *flags, *_SCHEDULING))
        priority, timeout = take_priority(parameters), take_timeout(parameters)
        raised = [flag for flag in flags if read_flag(parameters, flag)]
        for flag in flags:
            parameters.pop(flag, None)
        asked = check_outputs(signature, _output_names(request), raised)
        return (
            Call(
                model=model,
                tensors=read_tensors(request, signature, self._services.config),
                parameters=parameters,
                asked=asked,
                priority=priority,
                context=TimedContext(context, timeout),
                services=self._services,
            ),
            signature,
        )


def _output_names(request: open_inference_pb2.ModelInferRequest) -> list[str]:
    for output in request.outputs:
        for parameter in sorted(output.parameters):
            what = "there are no parameters of tensors"
            if parameter == "classification":
                what = "the best classes are asked for by the parameter `top_k` of the request"
            if parameter.startswith("shared_memory"):
                what = "shared memory is not supported"
            raise InvalidRequestError(
                shorten(output.name),
                f"the output `{shorten(output.name)}` has the parameter `{shorten(parameter)}`, "
                f"but {what}",
            )
    return [output.name for output in request.outputs]


def _respond(
    request: open_inference_pb2.ModelInferRequest,
    call: Call,
    signature: Signature,
    tensors: Tensors,
    *,
    is_piece: bool = False,
) -> open_inference_pb2.ModelInferResponse:
    names = _output_names(request)
    if is_piece:  # the rest is known at the end
        names = [name for name in names if name in tensors]
        if not names and request.outputs:
            return to_response(request, call.model.manifest, [])
    chosen = select_outputs(signature, names, call.asked & set(tensors), tensors)
    return to_response(request, call.model.manifest, chosen)
