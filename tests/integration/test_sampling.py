"""Sampling over gRPC: the same draws whatever the neighbours, by the odds of transformers."""

import asyncio
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from seqserve.client import AsyncClient
from seqserve.sampling import draw_number
from seqserve.v1 import generation_pb2
from seqserve_export.exporter import export_model
from serving import MakeServer, RunningServer, source
from tiny_hugging_face import make_hugging_face_folder


def make_inputs(count: int, seed: int) -> list[generation_pb2.GenerateInput]:
    """Inputs of mixed lengths: drawn, greedy, with beams, alternatives, prefixes, top tokens."""
    rng = random.Random(seed)
    inputs = []
    for index in range(count):
        tokens = [rng.randrange(4, 30) for _ in range(rng.randrange(1, 30))]
        options: dict[str, Any] = {
            "do_sample": True,
            "seed": index,
            "temperature": rng.choice([0.7, 1.0, 1.5]),
            "top_k": rng.choice([0, 3, 10]),
            "top_p": rng.choice([0.8, 1.0]),
            "num_return_sequences": rng.choice([1, 1, 3]),
            "return_token_log_probabilities": True,
        }
        if index % 4 == 3:
            options = {"num_beams": rng.choice([1, 3])}
        elif index % 4 == 2:
            options = {"return_alternatives": True, "num_return_sequences": rng.choice([2, 4])}
        if index % 3 == 0:
            options |= {"top_log_probability_count": 3, "suppressed_token_ids": [rng.randrange(30)]}
        one = source([*tokens, 1], max_new_tokens=rng.randrange(4, 28), **options)
        if index % 5 < 2:
            prefix = [rng.randrange(4, 30) for _ in range(rng.randrange(1, 5))]
            one.target_prefix_token_ids.values.extend(prefix)
        inputs.append(one)
    return inputs


async def generate(
    running: RunningServer, inputs: list[generation_pb2.GenerateInput]
) -> list[list[bytes]]:
    """Hypotheses of each input as bytes, so that equality is equality of every bit."""
    request = generation_pb2.GenerateRequest(model_name="tiny", inputs=inputs)
    response = await running.generation.Generate(request)
    return [
        [hypothesis.SerializeToString(deterministic=True) for hypothesis in result.hypotheses]
        for result in response.results
    ]


async def test_draws_are_the_same_alone_and_among_48_mixed_neighbours(serving: MakeServer) -> None:
    """Bit for bit, in one call and across calls, with few rows and many, in another server."""
    inputs = make_inputs(48, seed=1)
    async with serving() as running:
        alone = [(await generate(running, [one]))[0] for one in inputs]
        assert await generate(running, inputs) == alone
        apart = await asyncio.gather(*(generate(running, [one]) for one in inputs))
    async with serving(threads=2, max_batch_size=5, max_num_beams=5, max_batch_tokens=40) as other:
        assert await generate(other, inputs) == alone
    assert [results[0] for results in apart] == alone
    assert len({tuple(hypotheses) for hypotheses in alone}) > 20  # the inputs do matter


async def test_server_reports_the_seed_it_chose(serving: MakeServer) -> None:
    """With it the same hypotheses come again; greedy answers have none."""
    async with (
        serving() as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        ids = [[5, 6, 7, 8, 1]]
        drawn = await client.generate(
            ids * 3, model="tiny", do_sample=True, temperature=2.0, num_return_sequences=3
        )
        assert len({one.seed for one in drawn}) == 3
        for one in drawn:
            assert one.seed is not None
            (again,) = await client.generate(
                ids,
                model="tiny",
                do_sample=True,
                temperature=2.0,
                num_return_sequences=3,
                seed=one.seed,
            )
            assert (again.hypotheses, again.seed) == (one.hypotheses, one.seed)
        (greedy,) = await client.generate(ids, model="tiny")
    assert greedy.seed is None


async def test_stream_sends_the_first_hypothesis(serving: MakeServer) -> None:
    """Token by token; the result has all of them."""
    async with (
        serving() as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        stream = client.generate_stream(
            [5, 6, 7, 1], model="tiny", do_sample=True, seed=1, num_return_sequences=3
        )
        pieces = [piece async for piece in stream]
    first, *others = stream.result.hypotheses
    assert [piece.token_ids for piece in pieces] == [(token,) for token in first.token_ids]
    assert "".join(piece.text for piece in pieces) == first.text
    assert len(others) == 2


async def test_draws_are_from_the_distribution_of_transformers(
    serving: MakeServer, tmp_path: Path
) -> None:
    """Each token is the one that its number picks from what transformers would sample from.

    The folder samples by default, with a temperature and filters of its own.
    """
    torch.set_num_threads(1)
    folder = make_hugging_face_folder("t5", tmp_path / "source", seed=3)
    model: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    model.generation_config.update(do_sample=True, temperature=1.7, top_k=12, top_p=0.9)
    model.generation_config.save_pretrained(folder)
    export_model(folder, tmp_path / "store", name="model")
    processors = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(1.2),
            TemperatureLogitsWarper(1.7),
            TopKLogitsWarper(12),
            TopPLogitsWarper(0.9),
        ]
    )
    generator = np.random.default_rng(3)
    sources = generator.integers(5, 40, (6, 9)).tolist()
    async with (
        serving(models=tmp_path / "store") as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        info = await client.get_model()
        results = await client.generate(
            sources,
            seed=11,
            num_return_sequences=2,
            max_new_tokens=12,
            repetition_penalty=1.2,
            return_scores=True,
        )
        (greedy,) = await client.generate(sources[:1], do_sample=False)
    settings = info.generation
    assert settings is not None
    assert (settings.do_sample, settings.temperature) == (True, 1.7)
    assert (settings.top_k, settings.top_p) == (12, 0.9)
    assert greedy.seed is None
    for tokens, result in zip(sources, results, strict=True):
        assert result.hypotheses[0] != result.hypotheses[1]
        for index, hypothesis in enumerate(result.hypotheses):
            decoder_input_ids = torch.tensor([[0, *hypothesis.token_ids]])
            with torch.no_grad():
                outputs = model(
                    input_ids=torch.tensor([tokens]), decoder_input_ids=decoder_input_ids
                )
            logits = outputs.logits[0].float()
            total = 0.0
            for position, token in enumerate(hypothesis.token_ids):
                seen: Any = decoder_input_ids[:, : position + 1]
                left = processors(seen, logits[None, position].clone())[0].double().softmax(-1)
                order = left.argsort(descending=True, stable=True)
                sums = left[order].cumsum(0).numpy()
                number = draw_number(11, index, position)
                assert token == int(order[np.searchsorted(sums, number, side="right")])
                total += float(logits[position].log_softmax(-1)[token])
            assert hypothesis.score is not None
            assert abs(hypothesis.score - total) < 1e-4
