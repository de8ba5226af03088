"""Calls of the encode benchmark, in a process of its own: bulk, single, and many clients."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.json_process import answer
from seqserve.client import CallError, Client
from seqserve.v1 import encoding_pb2, encoding_pb2_grpc

_STREAM_SIZE = 64
"""Texts of one request of a stream."""
_TIMEOUT_SECONDS = 1200.0


def embed(target: str, model: str, texts_file: str, vectors_file: str | None = None) -> float:
    """Seconds to embed all texts through ``EmbedStream``."""
    texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
    with Client(target, timeout_seconds=_TIMEOUT_SECONDS) as client:
        started_at = time.perf_counter()
        vectors = list(_embed_stream(client, model, texts))
        seconds = time.perf_counter() - started_at
    if vectors_file is not None:
        np.save(vectors_file, np.concatenate(vectors))
    return seconds


def _embed_stream(client: Client, model: str, texts: list[str]) -> Iterator[Any]:
    batches = [texts[start : start + _STREAM_SIZE] for start in range(0, len(texts), _STREAM_SIZE)]
    for found in client.embed_stream(batches, model=model, normalize=True, truncate=True):
        if isinstance(found, CallError):
            raise found
        yield found.vectors


def embed_at_once(target: str, model: str, texts_file: str) -> float:
    """Seconds to embed all texts in one request."""
    request = encoding_pb2.EmbedRequest(model_name=model, truncate=True)
    request.inputs.extend(json.loads(Path(texts_file).read_text(encoding="utf-8")))
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(target, options) as channel:
        stub = encoding_pb2_grpc.EncodingServiceStub(channel)
        started_at = time.perf_counter()
        response = stub.Embed(request, timeout=_TIMEOUT_SECONDS)
        seconds = time.perf_counter() - started_at
    assert len(response.embeddings) == len(request.inputs)
    return seconds


def time_single(target: str, model: str, texts: list[str]) -> list[float]:
    """Seconds of single calls, one after the other."""
    seconds = []
    with Client(target) as client:
        for text in texts:
            started_at = time.perf_counter()
            client.embed(text, model=model)
            seconds.append(time.perf_counter() - started_at)
    return seconds


def run_clients(
    target: str, model: str, texts: list[str], num_clients: int, num_calls: int
) -> dict[str, Any]:
    """Clients that each send one text at a time, the next when the last is answered.

    Returns:
        Texts a second of all, and the seconds of each call.
    """
    return asyncio.run(_run_clients(target, model, texts, num_clients, num_calls))


async def _run_clients(
    target: str, model: str, texts: list[str], num_clients: int, num_calls: int
) -> dict[str, Any]:
    latencies: list[float] = []

    async def run(client: int) -> None:
        # A connection of its own, as another process would have.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            stub = encoding_pb2_grpc.EncodingServiceStub(channel)
            for place in range(num_calls):
                text = texts[(client * num_calls + place) % len(texts)]
                request = encoding_pb2.EmbedRequest(model_name=model, inputs=[text])
                called_at = time.perf_counter()
                await stub.Embed(request, timeout=_TIMEOUT_SECONDS)
                latencies.append(time.perf_counter() - called_at)

    started_at = time.perf_counter()
    await asyncio.gather(*(run(client) for client in range(num_clients)))
    seconds = time.perf_counter() - started_at
    return {"texts_per_second": len(latencies) / seconds, "seconds": latencies}


if __name__ == "__main__":
    answer(
        {
            "embed": embed,
            "embed_at_once": embed_at_once,
            "time_single": time_single,
            "run_clients": run_clients,
        }
    )
