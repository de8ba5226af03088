"""What a token bounds: how often its callers call, how urgently, and whose turns they take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import pytest

import inference_messages
from bearer_metadata import ADMIN, BOTH, INFER, bearer
from seqserve.client import AsyncClient, CallError
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2, priority_pb2
from serving import MakeServer, source


async def test_rate_is_refused_with_a_time_to_retry(serving: MakeServer, tmp_path: Path) -> None:
    """RetryInfo for programs, push-back for gRPC's own retries; others are not held up."""
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[[tokens]]\nname = "a"\nvalue = "{INFER}"\nrequests_per_second = 0.01\nburst = 2\n'
        f'[[tokens]]\nname = "b"\nvalue = "{ADMIN}"\n',
        encoding="utf-8",
    )
    request = model_pb2.ListModelsRequest()
    async with serving(token_file=path) as running:
        for _ in range(2):
            await running.model.ListModels(request, metadata=bearer(INFER))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.model.ListModels(request, metadata=bearer(INFER))
        for _ in range(5):
            await running.model.ListModels(request, metadata=bearer(ADMIN))
        async with AsyncClient(
            f"127.0.0.1:{running.ports.grpc}", token=INFER, retries=False
        ) as client:
            with pytest.raises(CallError) as told:
                await client.list_models()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (caught.value.details() or "").startswith(
        "your token is good for 0.01 requests per second; try again in "
    )
    trailers = dict(caught.value.trailing_metadata() or ())
    assert 50_000 < int(trailers["grpc-retry-pushback-ms"]) <= 100_000
    assert told.value.retry_after_seconds is not None
    assert 50 < told.value.retry_after_seconds <= 100


async def test_streams_are_slowed_down_to_the_rate(serving: MakeServer, tmp_path: Path) -> None:
    """Each of their messages counts, so that a stream is no way around the limit."""
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[[tokens]]\nname = "a"\nvalue = "{INFER}"\nrequests_per_second = 20\nburst = 1\n',
        encoding="utf-8",
    )
    message = encoding_pb2.EmbedStreamRequest(request=encoding_pb2.EmbedRequest(inputs=["a b"]))
    async with serving(token_file=path) as running:
        started_at = time.monotonic()
        stream = running.encoding.EmbedStream(iter([message] * 4), metadata=bearer(INFER))
        answers = [answer async for answer in stream]
        seconds = time.monotonic() - started_at
    infer = inference_messages.request("sentence", inference_messages.texts("a b"))
    async with serving(token_file=path) as running:
        started_at = time.monotonic()
        triton = inference_messages.stub(running)
        stream = triton.ModelStreamInfer(iter([infer] * 4), metadata=bearer(INFER))
        replies = [reply async for reply in stream]
        triton_seconds = time.monotonic() - started_at
    assert [answer.WhichOneof("outcome") for answer in answers] == ["response"] * 4
    assert [reply.error_message for reply in replies] == [""] * 4
    assert min(seconds, triton_seconds) >= 0.19  # five turns, the first of them at once


async def test_priority_is_limited_by_the_token(serving: MakeServer, token_file: Path) -> None:
    """In every call that has one, and in the messages of streams."""
    message = "`priority` may be at most normal with your token, but is high"
    high: dict[str, Any] = {"model_name": "tiny", "priority": priority_pb2.PRIORITY_HIGH}
    embed = encoding_pb2.EmbedRequest(inputs=["a"], priority=priority_pb2.PRIORITY_HIGH)
    score = generation_pb2.ScoreTargetsInput(text="a", targets=[generation_pb2.Target(text="b")])
    async with serving(token_file=token_file) as running:
        generation, encoding = running.generation, running.encoding
        calls: list[Any] = [
            (generation.Generate, generation_pb2.GenerateRequest(inputs=[source([5])], **high)),
            (generation.ScoreTargets, generation_pb2.ScoreTargetsRequest(inputs=[score], **high)),
            (encoding.Embed, embed),
        ]
        for method, request in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(request, metadata=bearer(INFER))
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert caught.value.details() == message
            await method(request, metadata=bearer(BOTH))
            request.priority = priority_pb2.PRIORITY_NORMAL
            await method(request, metadata=bearer(INFER))
        stream = generation.GenerateStream(
            generation_pb2.GenerateStreamRequest(input=source([5]), **high), metadata=bearer(INFER)
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.details() == message
        embed.priority = priority_pb2.PRIORITY_HIGH
        items = [encoding_pb2.EmbedStreamRequest(request=embed)]
        (answer,) = [one async for one in encoding.EmbedStream(iter(items), metadata=bearer(INFER))]
        assert (answer.error.code, answer.error.message) == (
            grpc.StatusCode.PERMISSION_DENIED.value[0],
            message,
        )


async def test_caller_is_the_token(serving: MakeServer, token_file: Path) -> None:
    """A name beside it is refused: it would have no effect."""
    async with serving(token_file=token_file) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.encoding.Embed(
                encoding_pb2.EmbedRequest(inputs=["a"]),
                metadata=[*bearer(INFER), ("seqserve-caller", "other")],
            )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == (
        "the metadata key `seqserve-caller` has no effect here, where the name of the token is the "
        "caller; leave it out"
    )
