"""Whatever bytes and values a caller sends, it gets a result or is told what was wrong with it."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzing import fuzz
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from serving import MakeServer, RunningServer

METHODS: list[MethodDescriptor] = [
    method
    for module in (generation_pb2, encoding_pb2, model_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
EXPECTED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}
OF_CONTROL = {"INVALID_ARGUMENT", "PERMISSION_DENIED"}
"""Of LoadModel and UnloadModel, which are off."""
ABANDONED = {"CANCELLED", "DEADLINE_EXCEEDED"}
PATIENCE_SECONDS = 20.0
INT32 = 2**31

RARELY = st.integers(0, 9).map(lambda number: number == 7)


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Seldom the odd, so that many requests get as far as the engine."""
    return RARELY.flatmap(lambda is_odd: odd if is_odd else usual)


INTEGERS = mostly(st.integers(1, 4), st.sampled_from([-INT32, -1, 0, 5, 29, 1000, INT32 - 1]))
FLOATS = mostly(st.floats(0.0, 2.0), st.floats())
TEXTS = mostly(st.text("ab ", min_size=1, max_size=40), st.text(max_size=12) | st.just("a " * 60))
NAMES = mostly(
    st.sampled_from(["tiny", "tiny", "long", "sentence"]),
    st.sampled_from(["", "nope", "tiny\x00", "../tiny"]),
)
VERSIONS = mostly(st.sampled_from(["", "1"]), st.sampled_from(["0", "-1", "2", "one"]))


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """What may stand in one field, or in one entry of a repeated one."""
    if field.name in ("model_name", "model_version"):
        return NAMES if field.name == "model_name" else VERSIONS
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            assert field.message_type is not None
            return messages(field.message_type)
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_INT64:
            return INTEGERS
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.integers(0, 5)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return FLOATS
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_STRING:
            return TEXTS
    raise AssertionError(f"{field.full_name} has a type that nothing is drawn for yet")


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor) -> Any:
    """A message of a type; options are seldom set, other fields mostly."""
    message = message_factory.GetMessageClass(descriptor)()
    is_options = descriptor.name.endswith("Options")
    for field in descriptor.fields:
        if field.is_repeated:
            size = draw(mostly(st.integers(1, 3), st.integers(0, 6)))
            for value in draw(st.lists(values(field), min_size=size, max_size=size)):
                if field.message_type is None:
                    getattr(message, field.name).append(value)
                else:
                    getattr(message, field.name).add().CopyFrom(value)
        elif draw(RARELY) == is_options:
            value = draw(values(field))
            if field.message_type is None:
                setattr(message, field.name, value)
            else:
                getattr(message, field.name).CopyFrom(value)
    return message


def damage(data: bytes, seed: int) -> bytes:
    """Replaces, removes, inserts and repeats some bytes."""
    chance = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 5)):
        place = chance.randrange(len(damaged) + 1)
        match chance.randrange(4):
            case 0:
                damaged[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del damaged[place : place + 1]
            case 2:
                damaged.insert(place, chance.randrange(256))
            case 3:
                damaged += damaged[place:]
    return bytes(damaged)


@dataclasses.dataclass(frozen=True)
class Call:
    """One RPC to make."""

    method: MethodDescriptor
    data: bytes
    seconds: float
    """How long the caller waits."""


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """A call with a message, a damaged one, one of another method, or no message at all."""
    method, other = draw(st.sampled_from(METHODS)), draw(st.sampled_from(METHODS))
    kind = draw(st.sampled_from(["whole"] * 6 + ["damaged"] * 2 + ["other", "random"]))
    if kind == "random":
        data = draw(st.binary(max_size=40))
    else:
        shown = other if kind == "other" else method
        data = draw(messages(shown.input_type)).SerializeToString()
    if kind == "damaged":
        data = damage(data, draw(st.integers(0, INT32)))
    seconds = draw(st.sampled_from([PATIENCE_SECONDS] * 7 + [0.004]))
    return Call(method, data, seconds)


async def make_call(running: RunningServer, call: Call) -> str:
    """The name of the status that a call ends with."""
    service = call.method.containing_service
    assert service is not None
    path = f"/{service.full_name}/{call.method.name}"
    stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = running.channel.unary_stream(
        path, request_serializer=bytes
    )
    unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = running.channel.unary_unary(
        path, request_serializer=bytes
    )
    try:
        if call.method.server_streaming:
            async for _ in stream(call.data, timeout=call.seconds):
                pass
        else:
            await unary(call.data, timeout=call.seconds)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


KEPT = (
    "seqserve_cache_budget_bytes",
    "seqserve_cache_reserved_bytes",
    "seqserve_max_rows",
    "seqserve_model_load_seconds",
)
"""Gauges of the models themselves, and of memory that is given back after a while without work."""


def gauges(running: RunningServer) -> dict[str, float]:
    """Our gauges that are not 0, though nothing is left to do."""
    return {
        f"{sample.name}{sample.labels}": sample.value
        for metric in running.metrics.registry.collect()
        if metric.type == "gauge" and metric.name.startswith("seqserve_")
        if metric.name not in KEPT
        for sample in metric.samples
        if sample.value
    }


async def check(running: RunningServer, batch: list[Call]) -> None:
    """Makes calls at the same time; checks their ends, and that nothing of them is left."""
    ends = await asyncio.gather(*(make_call(running, call) for call in batch))
    for call, end in zip(batch, ends, strict=True):
        allowed = OF_CONTROL if call.method.name in ("LoadModel", "UnloadModel") else EXPECTED
        if call.seconds != PATIENCE_SECONDS:
            allowed = allowed | ABANDONED
        assert end in allowed, f"{end} for {call}"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while left := gauges(running):  # what callers left is dropped before the next step
            await asyncio.sleep(0)
    assert left == {}
    assert running.num_outstanding == 0


def test_no_request_is_an_internal_error(serving: MakeServer) -> None:
    """Neither UNKNOWN nor INTERNAL; afterwards nothing runs, waits or counts as in flight."""
    limits = {"max_inputs_per_request": 4, "max_batch_size": 8, "max_num_beams": 4}

    with asyncio.Runner() as runner:
        server = serving(**limits, max_input_bytes=100, max_outstanding=12)
        running = runner.run(server.__aenter__())

        @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
        @given(batch=st.lists(calls(), min_size=4, max_size=12))
        def call(batch: list[Call]) -> None:
            runner.run(check(running, batch))

        try:
            fuzz(call)
        finally:
            runner.run(server.__aexit__(None, None, None))
