"""The numbers on the page are those of the calls that were made."""

import asyncio
from typing import Any

import grpc
import pytest

from seqserve.v1 import encoding_pb2, generation_pb2
from serving import MakeServer, RunningServer, source

PATIENCE_SECONDS = 20.0
GENERATE = "/seqserve.v1.GenerationService/Generate"
STREAM = "/seqserve.v1.GenerationService/GenerateStream"
NO_MODEL = {"model_name": "", "model_version": ""}


def read(running: RunningServer, name: str, model: str = "tiny", **labels: str) -> float:
    """One number of the page; 0 for what was never counted."""
    labels = {"model_name": model, "model_version": "1", **labels}
    return running.metrics.registry.get_sample_value(f"seqserve_{name}", labels) or 0.0


async def stream(running: RunningServer, num_tokens: int) -> int:
    """Streams so many tokens; returns the pieces."""
    request = generation_pb2.GenerateStreamRequest(
        model_name="tiny",
        input=source([5, 6, 1], min_new_tokens=num_tokens - 1, max_new_tokens=num_tokens),
    )
    messages = [message async for message in running.generation.GenerateStream(request)]
    return sum(len(message.piece.token_ids) > 0 for message in messages)


async def test_unary_call_is_split_into_its_stages(serving: MakeServer) -> None:
    """Each stage was observed once for each input, tokenizing once for the call."""
    texts = [generation_pb2.GenerateInput(text=text) for text in ("a b c", "d e")]
    async with serving() as running:
        reply = await running.generation.Generate(
            generation_pb2.GenerateRequest(model_name="tiny", inputs=texts)
        )
        counts = {
            stage: read(running, f"{stage}_duration_seconds_count")
            for stage in ("tokenize", "queue", "encode", "decode")
        }
        seconds = {
            stage: read(running, f"{stage}_duration_seconds_sum")
            for stage in ("queue", "encode", "decode")
        }
        first = read(running, "time_to_first_token_seconds_count")
        gaps = read(running, "inter_token_seconds_count")
        total = read(running, "request_duration_seconds_count", method=GENERATE)
        tokens = read(running, "source_tokens_total"), read(running, "target_tokens_total")
    assert counts == {"tokenize": 1, "queue": 2, "encode": 2, "decode": 2}
    for stage, value in seconds.items():
        told = [getattr(result.timing, f"{stage}_duration") for result in reply.results]
        assert sum(one.ToNanoseconds() / 1e9 for one in told) == pytest.approx(value)
    assert (first, gaps, total) == (2, 0, 1)
    assert tokens == (
        sum(result.source_token_count for result in reply.results),
        sum(len(result.hypotheses[0].token_ids) for result in reply.results),
    )


async def test_stream_is_timed_between_its_pieces(serving: MakeServer) -> None:
    """One first token, and a gap before each piece behind it."""
    async with serving() as running:
        num_pieces = await stream(running, 6)
        first = read(running, "time_to_first_token_seconds_count")
        gaps = read(running, "inter_token_seconds_count")
        decoding = read(running, "decode_duration_seconds_sum")
        between = read(running, "inter_token_seconds_sum")
    assert num_pieces == 6
    assert (first, gaps) == (1, 5)
    assert between <= decoding + 1.0


async def test_embedding_has_no_tokens_to_wait_for(serving: MakeServer) -> None:
    """An encoder's call has no decode stage, and no first token."""
    async with serving() as running:
        await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=["a cat", "a dog"]))
        counts = [
            read(running, f"{name}_seconds_count", "sentence")
            for name in ("queue_duration", "encode_duration", "decode_duration")
        ]
        first = read(running, "time_to_first_token_seconds_count", "sentence")
    assert (counts, first) == ([2, 2, 0], 0)


async def test_refusals_are_counted_by_their_reason(serving: MakeServer) -> None:
    """With the model if it was found; what a caller wrote never becomes a label."""
    async with serving() as running:
        refused: list[tuple[str, Any]] = [
            ("tiny", [source([5], num_beams=-1)]),
            ("tiny", []),
            ("no-such-model", [source([5])]),
            ("sentence", [source([5])]),
        ]
        for name, inputs in refused:
            with pytest.raises(grpc.aio.AioRpcError):
                await running.generation.Generate(
                    generation_pb2.GenerateRequest(model_name=name, inputs=inputs)
                )
        unknown: Any = running.channel.unary_unary("/seqserve.v1.GenerationService/Invented")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unknown(b"")
        counted = {
            (sample.labels["model_name"], sample.labels["code"], sample.labels["reason"]): (
                sample.value
            )
            for metric in running.metrics.requests.collect()
            for sample in metric.samples
        }
        labels = {
            value
            for metric in running.metrics.registry.collect()
            for sample in metric.samples
            for value in sample.labels.values()
        }
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert counted == {
        ("tiny", "INVALID_ARGUMENT", "invalid_request"): 2,
        ("", "NOT_FOUND", "model_not_found"): 1,
        ("", "UNIMPLEMENTED", "unsupported_task"): 1,
    }
    assert not any("no-such-model" in value or "Invented" in value for value in labels)


async def test_nothing_is_in_flight_once_all_is_answered(serving: MakeServer) -> None:
    """Gauges rise with the work and are back at 0 after it, however it ended."""
    async with serving() as running:
        in_flight = running.metrics.requests_in_flight
        request = generation_pb2.GenerateRequest(
            model_name="long", inputs=[source([7] * 20, min_new_tokens=190, max_new_tokens=199)]
        )
        calls = [running.generation.Generate(request) for _ in range(3)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while read(running, "running_sequences", "long") < 3:
                await asyncio.sleep(0)
            assert in_flight.labels(method=GENERATE)._value.get() == 3
            assert 3 <= read(running, "live_rows", "long") <= read(running, "max_rows", "long")
            calls[0].cancel()
            await asyncio.gather(*calls[1:])
            while in_flight.labels(method=GENERATE)._value.get():
                await asyncio.sleep(0)
            gauges = ("waiting_sequences", "running_sequences", "live_rows", "queue_age_seconds")
            while any(read(running, name, "long") for name in gauges):
                await asyncio.sleep(0)
            dropped = read(
                running, "dropped_sequences_total", "long", reason="cancelled", state="running"
            )
    assert dropped == 1


async def test_page_tells_what_is_running(serving: MakeServer) -> None:
    """The versions, what opening each model took, and the process itself."""
    async with serving() as running:
        value = running.metrics.registry.get_sample_value
        loads = [read(running, "model_load_seconds", name) for name in ("tiny", "sentence")]
        (build,) = running.metrics.build.collect()
        resident = value("process_resident_memory_bytes")
    assert all(0 < seconds < PATIENCE_SECONDS for seconds in loads)
    assert set(build.samples[0].labels) == {"version", "onnxruntime", "python"}
    assert resident is not None
    assert resident > 1_000_000


async def test_server_watches_its_event_loop(serving: MakeServer) -> None:
    """From its start on; 0 turns it off."""

    def count(running: RunningServer) -> float | None:
        name = "seqserve_event_loop_lag_seconds_count"
        return running.metrics.registry.get_sample_value(name)

    async with serving() as running, serving(watchdog_seconds=0) as unwatched:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not count(running):
                await asyncio.sleep(0.01)
        assert count(unwatched) == 0
