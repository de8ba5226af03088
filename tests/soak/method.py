"""The methods that are called, by short names of their own."""

from typing import Any, NamedTuple

import grpc

from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2

# The Open Inference Protocol has a package of its own.
_FILES: tuple[Any, ...] = (generation_pb2, encoding_pb2, model_pb2, open_inference_pb2)


class Method(NamedTuple):
    """One method, with what turns its messages into bytes and back."""

    path: str
    request_class: Any
    response_class: Any
    has_many_requests: bool
    has_many_responses: bool

    def open(self, channel: grpc.aio.Channel) -> Any:
        """What calls it; a request may also be bytes, which need not be a message."""
        kinds = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, True): channel.stream_stream,
        }
        make: Any = kinds[self.has_many_requests, self.has_many_responses]
        return make(
            self.path,
            request_serializer=_to_bytes,
            response_deserializer=self.response_class.FromString,
        )


def _to_bytes(request: Any) -> bytes:
    data: bytes = request if isinstance(request, bytes) else request.SerializeToString()
    return data


def _find(service: str, name: str) -> Method:
    for file in _FILES:
        if service in file.DESCRIPTOR.services_by_name:
            found = file.DESCRIPTOR.services_by_name[service].methods_by_name[name]
            return Method(
                f"/{found.containing_service.full_name}/{name}",
                getattr(file, found.input_type.name),
                getattr(file, found.output_type.name),
                found.client_streaming,
                found.server_streaming,
            )
    raise KeyError(service)


METHODS = {
    "generate": _find("GenerationService", "Generate"),
    "stream": _find("GenerationService", "GenerateStream"),
    "score": _find("GenerationService", "ScoreTargets"),
    "embed": _find("EncodingService", "Embed"),
    "embed_stream": _find("EncodingService", "EmbedStream"),
    "classify": _find("EncodingService", "Classify"),
    "classify_tokens": _find("EncodingService", "ClassifyTokens"),
    "rerank": _find("EncodingService", "Rerank"),
    "fill_mask": _find("EncodingService", "FillMask"),
    "tokenize": _find("ModelService", "Tokenize"),
    "infer": _find("GRPCInferenceService", "ModelInfer"),
    "infer_stream": _find("GRPCInferenceService", "ModelStreamInfer"),
}
