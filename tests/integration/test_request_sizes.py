"""Requests at and beyond their limits: what is too large is refused at once, without memory."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from http2_frames import END_STREAM, Frame, Http2Connection, Kind, call_headers
from planted_tokenizer import plant
from seqserve.config import ServerConfig
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from serving import MakeServer, source, status_of
from watched_server import MEBIBYTE, watched

PATIENCE_SECONDS = 20.0
GENERATE = "/seqserve.v1.GenerationService/Generate"
LIST_MODELS = "/seqserve.v1.ModelService/ListModels"


def raw(channel: grpc.aio.Channel, path: str = GENERATE) -> Any:
    """Calls with bytes."""
    return channel.unary_unary(path, request_serializer=bytes)


async def refuse(call: Any) -> str:
    """What a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status_of(caught.value)


async def test_messages_beyond_the_limit_take_no_memory(store: Path) -> None:
    """One byte more than the limit is RESOURCE_EXHAUSTED; the limit itself is read.

    A refused message leaves less than twice the limit behind. Of sixty the C library keeps what
    each thread of gRPC needed once, for the next: the last twenty leave less than twice the limit.
    """
    limit = ServerConfig().max_message_bytes
    async with (
        watched(store, max_growth=16 * limit) as server,
        grpc.aio.insecure_channel(server.target, [("grpc.max_send_message_length", -1)]) as channel,
    ):
        refused = {await refuse(raw(channel)(bytes(limit + 1)))}
        assert server.growth() < 2 * limit
        refused |= {await refuse(raw(channel)(bytes(limit + 1))) for _ in range(40)}
        after_forty = server.growth()
        refused |= {await refuse(raw(channel)(bytes(limit + 1))) for _ in range(20)}
        assert server.growth() - after_forty < 2 * limit
        read = await refuse(raw(channel)(b"\xff" * limit))
    assert read == "INVALID_ARGUMENT: the request's bytes are not a message of its type"
    (text,) = refused
    assert text.startswith("RESOURCE_EXHAUSTED: ")
    assert f"larger than max ({limit + 1} vs. {limit})" in text


async def test_message_that_unpacks_to_too_much_takes_no_memory(store: Path) -> None:
    """100 MB of zeros, which come as 100 KB, are given up when they have become too many."""
    bomb = bytes(100_000_000)
    async with (
        watched(store) as server,
        grpc.aio.insecure_channel(server.target, [("grpc.max_send_message_length", -1)]) as channel,
    ):
        text = await refuse(raw(channel)(bomb, compression=grpc.Compression.Gzip))
        assert text.startswith("RESOURCE_EXHAUSTED: ")
        assert "ecompressed message larger than max" in text
        assert server.growth() < 16 * MEBIBYTE


async def test_message_of_millions_of_parts_is_not_read(store: Path) -> None:
    """8 MiB of empty inputs would be half a gigabyte, made while nobody else is answered."""
    number = generation_pb2.GenerateRequest.DESCRIPTOR.fields_by_name["inputs"].number
    message = bytes([number << 3 | 2, 0]) * (4 * MEBIBYTE - 64)
    async with (
        watched(store, max_growth=6 * len(message)) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        text = await refuse(raw(channel)(message))
        assert text == (
            "INVALID_ARGUMENT: the request has more than 65536 fields in all; send fewer inputs at "
            "once"
        )


async def test_length_of_four_gibibytes_is_refused_at_once(store: Path) -> None:
    """Before any of it has come, and without room for it."""
    async with watched(store) as server, Http2Connection(server.ports.grpc) as connection:
        started_at = time.monotonic()
        connection.send(
            call_headers(1, GENERATE), Frame(Kind.DATA, 0, 1, b"\x00\xff\xff\xff\xffabc")
        )
        found = await status_number(connection)
        assert time.monotonic() - started_at < 1
        assert found == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


async def status_number(connection: Http2Connection) -> int:
    """The number of the status that the call of stream 1 ends with."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        frame = await connection.receive(Kind.HEADERS)
        while not frame.flags & END_STREAM:
            frame = await connection.receive(Kind.HEADERS)
    _, found, rest = frame.payload.partition(b"grpc-status")
    assert found
    return int(rest[1 : 1 + rest[0]])


async def test_metadata_that_is_no_base64_is_refused(serving: MakeServer) -> None:
    """INTERNAL, as gRPC has it for what breaks its protocol; the connection goes on."""
    async with serving() as running, Http2Connection(running.ports.grpc) as connection:
        message = Frame(Kind.DATA, END_STREAM, 1, bytes(5))
        connection.send(call_headers(1, LIST_MODELS, x_bin="not base64!"), message)
        assert await status_number(connection) == grpc.StatusCode.INTERNAL.value[0]
        await connection.settle()
        assert (await running.model.ListModels(model_pb2.ListModelsRequest())).models


async def test_texts_beyond_the_limit_are_not_tokenized(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 50 ms, by all methods alike; a text of as many bytes as are allowed is read."""
    limit = ServerConfig().max_input_bytes
    fits, too_long = "ä" * (limit // 2), "ä" * (limit // 2) + "a"
    assert len(fits.encode()) == limit

    async with serving() as running:

        def calls(text: str) -> list[tuple[str, Any]]:
            one = generation_pb2.GenerateInput(text=text)
            return [
                (
                    "inputs[0].text",
                    lambda: running.generation.Generate(
                        generation_pb2.GenerateRequest(
                            model_name="tiny", inputs=[one], truncate=True
                        )
                    ),
                ),
                (
                    "input.text",
                    lambda: running.generation.GenerateStream(
                        generation_pb2.GenerateStreamRequest(
                            model_name="tiny", input=one, truncate=True
                        )
                    ).read(),
                ),
                (
                    "inputs[0]",
                    lambda: running.encoding.Embed(
                        encoding_pb2.EmbedRequest(inputs=[text], truncate=True)
                    ),
                ),
                (
                    "texts[0]",
                    lambda: running.model.Tokenize(
                        model_pb2.TokenizeRequest(model_name="tiny", texts=[text])
                    ),
                ),
            ]

        for _, call in calls(fits)[:3]:
            await call()
        tokenized: list[str] = []
        for name in ("tiny", "sentence"):
            tokenizer = running.registry.find(name, "", None).source_tokenizer
            plant(monkeypatch, tokenizer, tokenized.append)
        for field, call in calls(too_long):
            seconds = []
            for _ in range(5):
                started_at = time.monotonic()
                assert await refuse(call()) == (
                    f"INVALID_ARGUMENT: `{field}` must have at most {limit} bytes "
                    f"(max_input_bytes), but has {limit + 1}"
                )
                seconds.append(time.monotonic() - started_at)
            assert statistics.median(seconds) < 0.05
    assert tokenized == []


async def test_inputs_of_a_request_are_bounded(serving: MakeServer) -> None:
    """As many as are allowed are answered, one more is refused with the name of the setting."""
    limit = ServerConfig().max_inputs_per_request
    one = source([5, 1], max_new_tokens=1)
    async with serving() as running:
        reply = await running.generation.Generate(
            generation_pb2.GenerateRequest(model_name="tiny", inputs=[one] * limit)
        )
        vectors = await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=["a"] * limit))
        refused = [
            await refuse(
                running.generation.Generate(
                    generation_pb2.GenerateRequest(model_name="tiny", inputs=[one] * (limit + 1))
                )
            ),
            await refuse(
                running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=["a"] * (limit + 1)))
            ),
        ]
    assert (len(reply.results), len(vectors.embeddings)) == (limit, limit)
    assert set(refused) == {
        f"INVALID_ARGUMENT: `inputs` must hold at most {limit} entries (max_inputs_per_request), "
        f"but holds {limit + 1}"
    }


async def test_calls_without_a_deadline_end_at_that_of_the_server(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before it, and hardly after it; the message names the setting."""
    limit = 0.4
    async with serving(max_request_seconds=limit) as running:
        engine = running.registry.find("tiny", "", None).lanes.workers[0]._engine
        whole = engine.run

        def slow(batch: Any, *options: Any) -> Any:
            time.sleep(0.02)  # in the worker's thread
            return whole(batch)

        monkeypatch.setattr(engine, "run", slow)
        one = source([7] * 20, min_new_tokens=31, max_new_tokens=32)
        started_at = time.monotonic()
        text = await refuse(
            running.generation.Generate(
                generation_pb2.GenerateRequest(model_name="tiny", inputs=[one])
            )
        )
        seconds = time.monotonic() - started_at
    assert text.startswith(
        f"DEADLINE_EXCEEDED: the server's limit of {limit} seconds (max_request_seconds) passed"
    )
    assert limit <= seconds < limit + 0.5
