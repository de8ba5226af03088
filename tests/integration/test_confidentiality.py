"""What callers send is theirs: it appears neither in the log nor on the page of metrics."""

from __future__ import annotations

import asyncio
import io
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.descriptor import MethodDescriptor

from http2_frames import Http2Connection, call_headers
from processes import read_metrics, start_process
from seqserve.config import ServerConfig
from seqserve.engine import GenerationEngine
from seqserve.logs import configure_logs
from seqserve.tokenizer import Tokenizer
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from serving import MakeServer

CANARY = "Kanarienvogel"
"""Stands for what nobody else may read: in texts, options, names and metadata."""
Input = generation_pb2.GenerateInput
LONG = f"{CANARY} " * 400
METADATA = [("seqserve-caller", CANARY), ("authorization", f"Bearer {CANARY}"), ("x-key", CANARY)]
MODULES = (generation_pb2, encoding_pb2, model_pb2)


def requests() -> Iterator[tuple[str, Any]]:
    """Calls that succeed and calls that fail in every way, each with the canary."""
    generation, encoding = "seqserve.v1.GenerationService/", "seqserve.v1.EncodingService/"
    tiny: dict[str, Any] = {"model_name": "tiny"}
    options = generation_pb2.GenerateOptions
    for text in (CANARY, LONG, f"{CANARY}\0"):
        one = Input(text=text)
        yield f"{generation}Generate", generation_pb2.GenerateRequest(inputs=[one], **tiny)
        yield f"{generation}GenerateStream", generation_pb2.GenerateStreamRequest(input=one, **tiny)
        yield f"{encoding}Embed", encoding_pb2.EmbedRequest(inputs=[text])
        yield f"{encoding}ClassifyTokens", encoding_pb2.ClassifyTokensRequest(inputs=[text])
        yield f"{encoding}FillMask", encoding_pb2.FillMaskRequest(inputs=[text])
        yield (
            f"{encoding}Rerank",
            encoding_pb2.RerankRequest(query=text, documents=[text], model_name=CANARY),
        )
        yield (
            "seqserve.v1.ModelService/Tokenize",
            model_pb2.TokenizeRequest(texts=[text], model_name="sentence"),
        )
        yield (
            f"{generation}ScoreTargets",
            generation_pb2.ScoreTargetsRequest(
                inputs=[
                    generation_pb2.ScoreTargetsInput(
                        text=text, targets=[generation_pb2.Target(text=text)]
                    )
                ],
                **tiny,
            ),
        )
    yield (
        f"{generation}Generate",
        generation_pb2.GenerateRequest(
            inputs=[Input(text="a", target_prefix_text=CANARY, source_language=CANARY)], **tiny
        ),
    )
    yield (
        f"{generation}Generate",
        generation_pb2.GenerateRequest(
            inputs=[Input(text="a", options=options(stop_sequences=[CANARY]))], **tiny
        ),
    )
    yield f"{generation}Generate", generation_pb2.GenerateRequest(model_name=CANARY)
    yield "seqserve.v1.ModelService/GetModel", model_pb2.GetModelRequest(model_version=CANARY)


def descriptor_of(path: str) -> MethodDescriptor:
    """Of the method in a path."""
    service, name = path.split("/")
    for module in MODULES:
        for found in module.DESCRIPTOR.services_by_name.values():
            if found.full_name == service:
                method: MethodDescriptor = found.methods_by_name[name]
                return method
    raise KeyError(path)


async def call(channel: grpc.aio.Channel, path: str, data: bytes, seconds: float = 20) -> str:
    """The name of the status that a call ends with."""
    is_stream = "/" in path and path.endswith("Stream")
    make: Any = channel.unary_stream if is_stream else channel.unary_unary
    started = make(f"/{path}", request_serializer=bytes)(data, metadata=METADATA, timeout=seconds)
    try:
        if is_stream:
            async for _ in started:
                pass
        else:
            await started
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def call_all(channel: grpc.aio.Channel) -> set[str]:
    """Makes all the calls, in time, out of time and with damaged bytes; returns their statuses."""
    statuses = set()
    for path, request in requests():
        data = request.SerializeToString()
        assert descriptor_of(path).input_type is request.DESCRIPTOR
        statuses.add(await call(channel, path, data))
        statuses.add(await call(channel, path, data, seconds=0.002))
        statuses.add(await call(channel, path, b"\x0a\xff" + data))
    for path in (f"seqserve.v1.ModelService/{CANARY}", f"{CANARY}/{CANARY}"):
        statuses.add(await call(channel, path, CANARY.encode()))
    return statuses


async def send_broken_metadata(port: int) -> None:
    """What gRPC complains of by itself: values that are not what their keys promise."""
    async with Http2Connection(port) as connection:
        path = "/seqserve.v1.ModelService/ListModels"
        for stream, more in enumerate(({"grpc_timeout": CANARY}, {"x_bin": f"{CANARY}!"})):
            connection.send(call_headers(2 * stream + 1, path, **more))
        await connection.settle()


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--log-format", "console"],
        ["--log-level", "debug"],
        ["--log-level", "debug", "--response-cache-bytes", "1000000", "--deduplicate"],
    ],
    ids=["default", "console", "debug", "kept"],
)
async def test_texts_are_neither_logged_nor_counted_by(store: Path, flags: list[str]) -> None:
    """By a server as it is started: nothing of theirs is in its output or its metrics."""
    process = await asyncio.to_thread(start_process, store, "--max-input-bytes", "2000", *flags)
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    match = re.search(r"grpc=(\S+) .*metrics=\S+:(\d+)", line)
    assert match, line
    async with grpc.aio.insecure_channel(match[1]) as channel:
        statuses = await call_all(channel)
    await send_broken_metadata(int(match[1].rpartition(":")[2]))
    page = await read_metrics(int(match[2]))
    process.send_signal(signal.SIGTERM)
    output, errors = await asyncio.to_thread(process.communicate, timeout=30)
    assert process.returncode == 0, errors
    assert statuses >= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"}
    assert errors.count("Generate") > 5, "the log is not that of the calls"
    assert "seqserve_requests_total" in page
    for text in (page, output, errors):
        assert CANARY.lower() not in text.lower()


def _fail(*arguments: Any, **options: Any) -> Any:
    """Has the texts among its variables when it fails."""
    raise RuntimeError("planted")


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(Tokenizer, "encode_truncated"), (GenerationEngine, "run")],
    ids=["tokenizer", "engine"],
)
async def test_texts_are_not_in_the_log_of_a_fault(
    serving: MakeServer,
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    name: str,
    log_format: str,
) -> None:
    """The traceback has lines and no values."""
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    configure_logs(ServerConfig.model_validate({"log_format": log_format}))
    try:
        async with serving() as running:
            monkeypatch.setattr(kind, name, _fail)
            for path in ("GenerationService/Generate", "GenerationService/GenerateStream"):
                data = next(
                    request.SerializeToString()
                    for found, request in requests()
                    if found.endswith(path)
                )
                assert await call(running.channel, f"seqserve.v1.{path}", data) == "INTERNAL"
            page = await read_metrics(running.ports.metrics)
    finally:
        structlog.reset_defaults()
    logged = output.getvalue()
    assert "planted" in logged
    assert "Traceback" in logged
    assert CANARY not in logged
    assert CANARY not in page
