"""Calls of every kind, made through whatever lies between, and what came of them.

The same calls are made by gRPC's Python library, by grpc-js and as grpc-web, directly and through
proxies; all must come to the same.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from serving import source

READER, ADMIN = "reader-0123456789abcdef", "admin-0123456789abcdef"
"""Tokens of those who may infer, and of those who may do everything."""
TOKENS = f"""
[[tokens]]
name = "reader"
value = "{READER}"
[[tokens]]
name = "admin"
value = "{ADMIN}"
scopes = ["infer", "admin"]
"""
MAX_OUTSTANDING = 8
NUM_TAKEN = 6
"""Places of ``tiny`` that others hold meanwhile."""
HELD_SECONDS = 0.4
"""The deadline of a call that is never answered."""
_PREFIX = "/seqserve.v1."


@dataclasses.dataclass(frozen=True)
class ForeignCall:
    """What is sent."""

    name: str
    """Also the id of the request."""
    path: str
    requests: tuple[Message, ...]
    code: grpc.StatusCode = grpc.StatusCode.OK
    """What must come of it."""
    detail: str = ""
    """The kind of detail that must come with it, besides ErrorInfo."""
    is_refused_by_grpc: bool = False
    """Whether the status is that of gRPC, in the server or in the caller, without details."""
    token: str | None = READER
    timeout_seconds: float = 20.0
    long_value: str = ""
    """Metadata that does nothing."""
    is_cancelled: bool = False
    """Whether the caller leaves after the first reply, its own side being open still."""

    @property
    def metadata(self) -> dict[str, str]:
        """What is sent with it; a key with an underscore, which some proxies drop, is the id's."""
        pairs = {"x-request-id": self.name}
        if self.token is not None:
            pairs["authorization"] = f"Bearer {self.token}"
        if self.long_value:
            pairs["x_long.value"] = self.long_value
        return pairs

    @property
    def method(self) -> Any:
        """Its descriptor."""
        service, _, name = self.path[1:].rpartition("/")
        for module in (generation_pb2, encoding_pb2, model_pb2, health_pb2):
            for descriptor in module.DESCRIPTOR.services_by_name.values():
                if descriptor.full_name == service:
                    return descriptor.methods_by_name[name]
        raise AssertionError(self.path)

    def to_json(self) -> dict[str, object]:
        """For programs in other languages."""
        return {
            "name": self.name,
            "path": self.path,
            "requests": [
                base64.b64encode(one.SerializeToString()).decode() for one in self.requests
            ],
            "metadata": self.metadata,
            "timeoutSeconds": self.timeout_seconds,
            "isCancelled": self.is_cancelled,
        }


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a call, the same for whoever makes it."""

    code: str
    message: str
    """Empty where it is not the server's: it has details with all of its own."""
    replies: tuple[str, ...]
    """Without times."""
    request_id: str | None
    """None where the status is not the server's."""
    is_pushed_back: bool
    """Whether it was told when to come back."""
    details: tuple[str, ...]
    """Without the time to come back, which is measured anew for every call."""


def to_outcome(
    call: ForeignCall,
    code: int,
    message: str,
    replies: list[bytes],
    trailers: Mapping[str, str | bytes],
) -> Outcome:
    """Reads the bytes of replies and of the status' details."""
    name = next(one.name for one in grpc.StatusCode if one.value[0] == code)
    reply_class = message_factory.GetMessageClass(call.method.output_type)
    parsed = [reply_class.FromString(reply) for reply in replies]
    for reply in parsed:
        _clear_times(reply)
    rich = trailers.get("grpc-status-details-bin", b"")
    assert isinstance(rich, bytes)
    details = [_unpack(one) for one in status_pb2.Status.FromString(rich).details]
    # What no handler of ours has said is worded by whichever library or proxy came first.
    is_ours = name == "OK" or bool(details)
    return Outcome(
        name,
        message if is_ours else "",
        tuple(str(reply) for reply in parsed),
        str(trailers.get("x-request-id")) if is_ours else None,
        int(trailers.get("grpc-retry-pushback-ms", 0)) > 0,
        tuple(details),
    )


async def call_directly(channel: grpc.aio.Channel, call: ForeignCall) -> Outcome:
    """Makes a call with gRPC's own library."""

    async def requests() -> AsyncIterator[bytes]:
        for request in call.requests:
            yield request.SerializeToString()

    method: Any = channel.stream_stream(call.path)
    stream = method(
        # An iterator may end, while a call that is left has more to say.
        None if call.is_cancelled else requests(),
        timeout=call.timeout_seconds,
        metadata=tuple(call.metadata.items()),
    )
    if call.is_cancelled:
        for request in call.requests:
            await stream.write(request.SerializeToString())
    replies: list[bytes] = []
    try:
        async for reply in stream:
            replies.append(reply)
            if call.is_cancelled:
                stream.cancel()
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        pass  # the status tells
    code, message = await stream.code(), await stream.details()
    trailers = dict(await stream.trailing_metadata() or ())
    return to_outcome(call, code.value[0], message, replies, trailers)


def check_outcome(call: ForeignCall, outcome: Outcome) -> None:
    """Checks that a call came to what it must."""
    assert outcome.code == call.code.name, outcome
    is_ours = not call.is_refused_by_grpc
    assert outcome.request_id == (call.name if is_ours else None), outcome
    is_refused = is_ours and call.code is not grpc.StatusCode.OK
    assert bool(outcome.replies) == (not is_refused if is_ours else call.is_cancelled), outcome
    kinds = [detail.partition(":")[0] for detail in outcome.details]
    expected = [kind for kind in ("ErrorInfo" if is_refused else "", call.detail) if kind]
    assert kinds == expected, outcome
    assert outcome.is_pushed_back == (call.detail == "RetryInfo")


def _unpack(detail: Any) -> str:
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
    ):
        message = kind()
        if detail.Unpack(message):
            if isinstance(message, error_details_pb2.RetryInfo):
                assert message.retry_delay.ToMilliseconds() > 0
                message.ClearField("retry_delay")
            return f"{kind.DESCRIPTOR.name}: {message}"
    raise AssertionError(detail)


def _clear_times(message: Message) -> None:
    for field, value in message.ListFields():
        if field.name == "timing":
            message.ClearField(field.name)
        elif field.message_type is not None:
            for one in [value] if isinstance(value, Message) else value:
                if isinstance(one, Message):
                    _clear_times(one)


def _generate(
    *inputs: generation_pb2.GenerateInput, model: str = "tiny", **options: int
) -> Message:
    return generation_pb2.GenerateRequest(
        model_name=model,
        inputs=inputs,
        options=generation_pb2.GenerateOptions(**options),  # type: ignore[arg-type]
    )


def _embed(*texts: str, model: str = "sentence", **settings: bool) -> encoding_pb2.EmbedRequest:
    return encoding_pb2.EmbedRequest(model_name=model, inputs=texts, **settings)  # type: ignore[arg-type]


_GENERATE, _EMBED = _PREFIX + "GenerationService/Generate", _PREFIX + "EncodingService/Embed"
_EMBED_STREAM = _PREFIX + "EncodingService/EmbedStream"
_LOAD, _UNLOAD = _PREFIX + "ModelService/LoadModel", _PREFIX + "ModelService/UnloadModel"
_STREAM_REQUESTS = tuple(
    encoding_pb2.EmbedStreamRequest(request=request)
    for request in (_embed("a b", "c"), _embed(), _embed("d", return_token_embeddings=True))
)
_CODE = grpc.StatusCode
CALLS = (
    ForeignCall("unary", _GENERATE, (_generate(source([5, 6, 1]), source([7, 1]), num_beams=2),)),
    ForeignCall(
        "server-stream",
        _PREFIX + "GenerationService/GenerateStream",
        (
            generation_pb2.GenerateStreamRequest(
                model_name="tiny", input=source([5, 6, 1], min_new_tokens=8)
            ),
        ),
    ),
    ForeignCall("embed", _EMBED, (_embed("a b", "äöü 🙂"),)),
    ForeignCall("both-stream", _EMBED_STREAM, _STREAM_REQUESTS),
    ForeignCall("models", _PREFIX + "ModelService/ListModels", (model_pb2.ListModelsRequest(),)),
    ForeignCall("large-metadata", _EMBED, (_embed("a"),), long_value="x" * 14_000),
    ForeignCall(
        "too-large-metadata",
        _EMBED,
        (_embed("a"),),
        _CODE.RESOURCE_EXHAUSTED,
        is_refused_by_grpc=True,
        long_value="x" * 17_000,
    ),
    ForeignCall(
        "large-message", _EMBED, (_embed(*["x" * 200_000] * 25, model="none"),), _CODE.NOT_FOUND
    ),
    ForeignCall(
        "too-large-message",
        _EMBED,
        (_embed("x" * 9_000_000),),
        _CODE.RESOURCE_EXHAUSTED,
        is_refused_by_grpc=True,
    ),
    ForeignCall(
        "invalid",
        _GENERATE,
        (_generate(source([5]), num_beams=0),),
        _CODE.INVALID_ARGUMENT,
        "BadRequest",
    ),
    ForeignCall("absent", _GENERATE, (_generate(source([5]), model="nö"),), _CODE.NOT_FOUND),
    ForeignCall("unsupported", _EMBED, (_embed("a", model="tiny"),), _CODE.UNIMPLEMENTED),
    ForeignCall(
        "overloaded",
        _GENERATE,
        (_generate(*[source([5])] * 3),),
        _CODE.RESOURCE_EXHAUSTED,
        "RetryInfo",
    ),
    ForeignCall("unknown-caller", _EMBED, (_embed("a"),), _CODE.UNAUTHENTICATED, token=None),
    ForeignCall(
        "forbidden",
        _UNLOAD,
        (model_pb2.UnloadModelRequest(model_name="tiny", model_version="1"),),
        _CODE.PERMISSION_DENIED,
    ),
    ForeignCall(
        "loaded-already",
        _LOAD,
        (model_pb2.LoadModelRequest(model_name="tiny", model_version="1"),),
        _CODE.ALREADY_EXISTS,
        token=ADMIN,
    ),
    ForeignCall(
        "refused",
        _LOAD,
        (model_pb2.LoadModelRequest(model_name="tiny", model_version="9"),),
        _CODE.FAILED_PRECONDITION,
        token=ADMIN,
    ),
    ForeignCall("fault", _EMBED, (_embed("fault"),), _CODE.INTERNAL),
    ForeignCall(
        "late",
        _GENERATE,
        (_generate(source([5]), model="long"),),
        _CODE.DEADLINE_EXCEEDED,
        is_refused_by_grpc=True,
        timeout_seconds=HELD_SECONDS,
    ),
    ForeignCall(
        "left",
        _EMBED_STREAM,
        _STREAM_REQUESTS[:1],
        _CODE.CANCELLED,
        is_refused_by_grpc=True,
        is_cancelled=True,
    ),
)
"""One of each shape, size and status."""
