"""Bytes of any kind for every method there is: a result or a status that is documented."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fuzzing import fuzz
from integration.test_hostile_requests import damage
from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.v1 import attention_pb2, encoding_pb2, generation_pb2, model_pb2
from serving import MakeServer, RunningServer

FILES: list[FileDescriptor] = [
    module.DESCRIPTOR
    for module in (
        generation_pb2,
        encoding_pb2,
        attention_pb2,
        model_pb2,
        open_inference_pb2,
        health_pb2,
        reflection_pb2,
    )
]
EXPECTED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}
OF_CONTROL = {"PERMISSION_DENIED"}
"""Of calls that load, unload and set, which are off."""
PATIENCE_SECONDS = 20.0
WATCH_SECONDS = 0.05
MALFORMED = "the request's bytes are not a message of its type"


def find_methods() -> Iterator[MethodDescriptor]:
    """Every method of every service that is served."""
    for file in FILES:
        for service in file.services_by_name.values():
            yield from service.methods


METHODS = sorted(find_methods(), key=lambda method: method.full_name)


def path_of(method: MethodDescriptor) -> str:
    """As it stands in a call."""
    assert method.containing_service is not None
    return f"/{method.containing_service.full_name}/{method.name}"


async def call(channel: grpc.aio.Channel, method: MethodDescriptor, data: bytes) -> str:
    """Code and text that a call ends with."""
    # What watches has no end of its own.
    seconds = WATCH_SECONDS if method.name == "Watch" else PATIENCE_SECONDS
    kind = "stream" if method.client_streaming else "unary"
    reply_kind = "stream" if method.server_streaming else "unary"
    make: Any = getattr(channel, f"{kind}_{reply_kind}")(path_of(method), request_serializer=bytes)
    started = make(iter([data]) if method.client_streaming else data, timeout=seconds)
    try:
        if method.server_streaming:
            async for _ in started:
                pass
        else:
            await started
    except grpc.aio.AioRpcError as error:
        if method.name == "Watch" and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return "OK: "
        return f"{error.code().name}: {error.details()}"
    return "OK: "


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x80\x80\x80\x80\x10"])
async def test_every_method_refuses_what_is_no_message(serving: MakeServer, data: bytes) -> None:
    """In our words, without the name of a class; streams of requests may say it in an answer."""
    async with serving() as running:
        ends = {method.full_name: await call(running.channel, method, data) for method in METHODS}
    assert len(ends) >= 29
    per_message = {"seqserve.v1.EncodingService.EmbedStream"}
    per_message |= {"inference.GRPCInferenceService.ModelStreamInfer"}
    assert {name: end for name, end in ends.items() if name not in per_message} == {
        name: f"INVALID_ARGUMENT: {MALFORMED}" for name in ends.keys() - per_message
    }
    assert {ends[name] for name in per_message} == {"OK: "}


def test_any_bytes_get_a_documented_status(serving: MakeServer) -> None:
    """Random ones, and messages of the type with some bytes replaced, removed and repeated.

    A few thousand of them in the suite; as many as FUZZ_SECONDS allow by ``make fuzz``.
    """
    whole = {
        "inference.GRPCInferenceService.ModelInfer": open_inference_pb2.ModelInferRequest(
            model_name="sentence",
            inputs=[
                open_inference_pb2.ModelInferRequest.InferInputTensor(
                    name="text",
                    datatype="BYTES",
                    shape=[2],
                    contents=open_inference_pb2.InferTensorContents(bytes_contents=[b"a", b"b"]),
                )
            ],
        ).SerializeToString(),
        "seqserve.v1.GenerationService.Generate": generation_pb2.GenerateRequest(
            model_name="tiny",
            inputs=[generation_pb2.GenerateInput(text="a b")],
            options=generation_pb2.GenerateOptions(num_beams=2, max_new_tokens=3),
        ).SerializeToString(),
    }
    usual = b"\x0a\x04tiny\x1a\x03a b"

    with asyncio.Runner() as runner:
        server = serving(max_inputs_per_request=4, max_batch_size=8, max_num_beams=4)
        running: RunningServer = runner.run(server.__aenter__())

        async def check(batch: list[tuple[MethodDescriptor, bytes]]) -> None:
            ends = await asyncio.gather(*(call(running.channel, *one) for one in batch))
            for (method, data), end in zip(batch, ends, strict=True):
                code = end.partition(":")[0]
                assert code in EXPECTED | OF_CONTROL, f"{end} for {method.full_name} {data!r}"

        requests = st.sampled_from(METHODS).flatmap(
            lambda method: st.tuples(
                st.just(method),
                st.binary(max_size=60)
                | st.integers(0, 2**31).map(
                    lambda seed: damage(whole.get(method.full_name, usual), seed)
                ),
            )
        )

        @settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
        @example(batch=[(method, b"") for method in METHODS])
        @given(batch=st.lists(requests, min_size=8, max_size=16))
        def send(batch: list[tuple[MethodDescriptor, bytes]]) -> None:
            runner.run(check(batch))

        try:
            fuzz(send)
            assert running.num_outstanding == 0
        finally:
            runner.run(server.__aexit__(None, None, None))
