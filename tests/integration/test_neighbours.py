"""Calls of different clients that share a batch: what is wrong with one is no matter to others."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest

from held_engine import HeldEngine
from seqserve import engine
from seqserve.choice import choose
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from serving import MakeServer, source

NUM_CLIENTS = 5
BAD = 2
TEXTS = {
    "nul": "a \0 b",
    "escaped surrogates": "a \\ud800 \\udfff b",
    "right to left": "\u202eab \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "emoji": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 a",
    "combining marks": "a" + "\u0301" * 10_000,
    "byte order mark": "\ufeffa",
    "unassigned": "\U0010ffff\ufffe",
}


async def test_row_that_comes_to_nothing_fails_alone(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five clients share each batch; the one whose logits are NaN gets INTERNAL, counted as such.

    The others have, to the last bit, what they have of a run alone.
    """
    requests = [
        generation_pb2.GenerateRequest(
            model_name="tiny",
            inputs=[
                source([5 + index, 6, 7, 1], min_new_tokens=8, max_new_tokens=8 + (index == BAD))
            ],
            options=generation_pb2.GenerateOptions(
                return_scores=True, return_token_log_probabilities=True
            ),
        )
        for index in range(NUM_CLIENTS)
    ]

    def spoil(searches: Any, logits: Any, rank: Any) -> Any:
        for search, rows in searches:
            if search.options.max_new_tokens == 9:
                logits[rows] = np.nan
        return choose(searches, logits, rank)

    async with serving() as running:
        alone = [await running.generation.Generate(request) for request in requests]
        with monkeypatch.context() as patch:
            patch.setattr(engine, "choose", spoil)
            held = HeldEngine(running, "tiny", patch)
            calls = [
                running.generation.Generate(request, metadata=(("seqserve-caller", f"c{index}"),))
                for index, request in enumerate(requests)
            ]
            while running.num_outstanding < NUM_CLIENTS:
                await asyncio.sleep(0.001)
            held.open()
            ends = await asyncio.gather(*calls, return_exceptions=True)
        reasons = {
            sample.labels["reason"]: sample.value
            for metric in running.metrics.requests.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.labels["code"] == "INTERNAL"
        }
    assert ("decode", NUM_CLIENTS) in held.batches or ("decode", NUM_CLIENTS - 1) in held.batches
    for index, (end, expected) in enumerate(zip(ends, alone, strict=True)):
        if index == BAD:
            assert isinstance(end, grpc.aio.AioRpcError)
            assert end.code() is grpc.StatusCode.INTERNAL
        else:
            assert isinstance(end, generation_pb2.GenerateResponse)
            assert end.results[0].hypotheses == expected.results[0].hypotheses
    assert reasons == {"non_finite": 1}


@pytest.mark.parametrize("name", TEXTS)
async def test_odd_texts_are_read_or_refused(serving: MakeServer, name: str) -> None:
    """By every method that takes a text: OK or INVALID_ARGUMENT."""
    text = TEXTS[name]
    one = generation_pb2.GenerateInput(text=text)
    async with serving() as running:
        calls: list[Any] = [
            running.generation.Generate(
                generation_pb2.GenerateRequest(model_name="tiny", inputs=[one], truncate=True)
            ),
            running.generation.GenerateStream(
                generation_pb2.GenerateStreamRequest(model_name="tiny", input=one, truncate=True)
            ).read(),
            running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=[text], truncate=True)),
            running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=[text])),
            running.model.Tokenize(model_pb2.TokenizeRequest(model_name="tiny", texts=[text])),
        ]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            assert isinstance(end, grpc.aio.AioRpcError)
            assert end.code() is grpc.StatusCode.INVALID_ARGUMENT
