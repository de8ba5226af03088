"""Calls that are one too many: refused at once, and not worked on."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from planted_tokenizer import plant
from seqserve.v1 import encoding_pb2, generation_pb2
from serving import MakeServer, source, status_of
from tiny_request import generate


async def test_overload_is_refused_at_once_with_a_time_to_retry(serving: MakeServer) -> None:
    """Beyond ``max_outstanding`` nothing is queued; the refusal carries push-back."""
    async with serving(max_outstanding=3, max_inputs_per_request=3) as running:
        admission = running.registry.find("tiny", "", None).admission
        with admission.admit(1), pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.Generate(generate(inputs=[source([5])] * 3))
        accepted = await running.generation.Generate(generate(inputs=[source([5])] * 3))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(caught.value.trailing_metadata() or ())
    assert trailers["grpc-retry-pushback-ms"] == "1000"
    assert len(accepted.results) == 3


async def test_flood_is_refused_by_admission(serving: MakeServer) -> None:
    """Each of 1,500 calls on one connection gets its answer, or a refusal with a time to retry."""
    request = generate(inputs=[source([5, 6, 7, 1], max_new_tokens=4)])
    async with serving(max_outstanding=8, max_inputs_per_request=8) as running:
        calls = [running.generation.Generate(request) for _ in range(1500)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        rejected = running.metrics.registry.get_sample_value(
            "seqserve_rejected_total",
            {"model_name": "tiny", "model_version": "1", "reason": "queue_full"},
        )
    num_refused = 0
    for end in ends:
        if isinstance(end, generation_pb2.GenerateResponse):
            assert len(end.results) == 1
            continue
        assert isinstance(end, grpc.aio.AioRpcError)
        assert end.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, status_of(end)
        trailers = dict(end.trailing_metadata() or ())
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)
        milliseconds = retry.retry_delay.ToMilliseconds()
        assert trailers["grpc-retry-pushback-ms"] == str(milliseconds)
        assert 10 <= milliseconds <= 60_000
        num_refused += 1
    assert 0 < num_refused < 1500
    assert rejected == num_refused


async def test_refused_calls_are_not_tokenized(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Admission comes first, for every method that runs a model; the metrics count refusals."""
    async with serving(max_outstanding=1, max_inputs_per_request=1) as running:
        text = generation_pb2.GenerateInput(text="a b c")
        calls: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("tiny", lambda: running.generation.Generate(generate(inputs=[text]))),
            (
                "tiny",
                lambda: running.generation.GenerateStream(
                    generation_pb2.GenerateStreamRequest(model_name="tiny", input=text)
                ).read(),
            ),
            (
                "sentence",
                lambda: running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=["a b c"])),
            ),
        ]
        for name, call in calls:
            model = running.registry.find(name, "", None)
            tokenized: list[str] = []

            def keep(text: str, tokenized: list[str] = tokenized) -> object:
                tokenized.append(text)
                raise AssertionError("a refused call was tokenized")

            with monkeypatch.context() as patch, model.admission.admit(1):
                plant(patch, model.source_tokenizer, keep)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert tokenized == []
        rejected = {
            name: running.metrics.registry.get_sample_value(
                "seqserve_rejected_total",
                {"model_name": name, "model_version": "1", "reason": "queue_full"},
            )
            for name in ("tiny", "sentence")
        }
    assert rejected == {"tiny": 2.0, "sentence": 1.0}
