"""The methods that the page may call, and no others: none changes what is served."""

import dataclasses

from google.protobuf import message_factory
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message import Message

from seqserve.v1 import attention_pb2, encoding_pb2, generation_pb2, model_pb2

PREFIX = "/api/"
"""Of the paths of all of them: behind it comes that of gRPC, ``seqserve.v1.Service/Method``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """One of them."""

    path: str
    """That gRPC calls it by."""
    request_type: type[Message]
    response_type: type[Message]
    is_streamed: bool
    """Whether it answers with several messages."""


def _find(file: FileDescriptor, service: str, *names: str) -> list[Method]:
    methods = file.services_by_name[service].methods_by_name
    return [_describe(methods[name]) for name in names]


def _describe(descriptor: MethodDescriptor) -> Method:
    return Method(
        f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        message_factory.GetMessageClass(descriptor.input_type),
        message_factory.GetMessageClass(descriptor.output_type),
        descriptor.server_streaming,
    )


METHODS = {
    PREFIX + method.path.removeprefix("/"): method
    for method in (
        *_find(model_pb2.DESCRIPTOR, "ModelService", "ListModels"),
        *_find(generation_pb2.DESCRIPTOR, "GenerationService", "GenerateStream"),
        *_find(attention_pb2.DESCRIPTOR, "AttentionService", "Attend"),
        *_find(
            encoding_pb2.DESCRIPTOR,
            "EncodingService",
            *("Embed", "Classify", "ClassifyTokens", "Rerank", "FillMask"),
        ),
    )
}
"""By the paths of requests."""
