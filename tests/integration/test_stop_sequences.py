"""Stop sequences over the real server: those of ``transformers``, in streams, among neighbours."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers

from seqserve.client import AsyncClient, Generation
from seqserve.manifest import read_manifest
from seqserve.v1 import generation_pb2
from seqserve_export.exporter import export_model
from seqserve_export.tokenization.folder_tokenizers import read_folder_tokenizers
from serving import MakeServer, source
from tiny_hugging_face import make_hugging_face_folder

MAX_NEW_TOKENS = 16
SCORE_TOLERANCE = 1e-4


class Exported(NamedTuple):
    """A family in both forms."""

    store: Path
    model: Any
    tokenizer: Any
    sources: list[list[int]]


@pytest.fixture(scope="module", params=["bart", "marian"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny folder of a family: bytes, or pieces."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp(request.param)
    folder = make_hugging_face_folder(request.param, root / "source", seed=3)
    report = export_model(folder, root / "store", name="model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager")
    size = read_manifest(report.folder).source_vocabulary_size
    generator = np.random.default_rng(11)
    return Exported(
        store=root / "store",
        model=model.eval(),
        tokenizer=read_folder_tokenizers(folder, config).original,
        sources=[generator.integers(5, size - 5, length).tolist() for length in (3, 5, 8, 13, 21)],
    )


def pick_sequences(generations: list[Generation]) -> list[str]:
    """Short texts from the middle of targets, across tokens wherever they are short."""
    sequences = []
    for generation in generations:
        text = generation.text
        middle = len(text) // 2
        sequence = text[middle : middle + 3]
        if sequence.strip() and "\ufffd" not in sequence:
            sequences.append(sequence)
    return sequences


@pytest.mark.parametrize("num_beams", [1, 4])
async def test_targets_end_where_those_of_transformers_end(
    exported: Exported, serving: MakeServer, num_beams: int
) -> None:
    """Same tokens, scores and order with ``stop_strings``; the text ends before the sequence."""
    options: dict[str, Any] = {"max_new_tokens": MAX_NEW_TOKENS, "num_beams": num_beams}
    several: dict[str, Any] = {"num_return_sequences": num_beams, "return_scores": True}
    num_stopped = 0
    # For beams a padding of 0 is taken for none, so that targets are filled up with end tokens.
    fillers = {exported.model.config.pad_token_id, exported.model.config.eos_token_id}
    async with (
        serving(models=exported.store) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        plain = await client.generate(exported.sources, **options)
        sequences = pick_sequences(plain)
        assert sequences
        results = await client.generate(
            exported.sources, stop_sequences=sequences, **options, **several
        )
    for ids, result in zip(exported.sources, results, strict=True):
        with torch.no_grad():
            expected = exported.model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                do_sample=False,
                stop_strings=sequences,
                tokenizer=exported.tokenizer,
                num_return_sequences=num_beams,
                return_dict_in_generate=True,
                output_scores=True,
                **options,
            )
        for rank, hypothesis in enumerate(result.hypotheses):
            tokens = list(hypothesis.token_ids)
            row = expected.sequences[rank, 1:].tolist()
            assert row[: len(tokens)] == tokens
            assert set(row[len(tokens) :]) <= fillers
            if num_beams > 1:
                assert hypothesis.score == pytest.approx(
                    float(expected.sequences_scores[rank]), abs=SCORE_TOLERANCE
                )
            whole = exported.tokenizer.decode(tokens, skip_special_tokens=True)
            is_stopped = hypothesis.finish_reason == "stop_sequence"
            num_stopped += is_stopped
            assert is_stopped == any(sequence in whole for sequence in sequences)
            if is_stopped:
                assert hypothesis.stop_sequence in sequences
                assert hypothesis.text == whole[: whole.index(hypothesis.stop_sequence)]
            else:
                assert hypothesis.text == whole
    assert num_stopped > 0


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("is_included", [False, True])
async def test_stream_is_the_text_without_what_belongs_to_a_sequence(
    exported: Exported, serving: MakeServer, num_beams: int, is_included: bool
) -> None:
    """Pieces join to the text of the result, which is that of the call without a stream."""
    options: dict[str, Any] = {"max_new_tokens": MAX_NEW_TOKENS, "num_beams": num_beams}
    async with (
        serving(models=exported.store) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        plain = await client.generate(exported.sources, **options)
        stops: dict[str, Any] = {
            "stop_sequences": pick_sequences(plain),
            "include_stop_sequence": is_included,
        }
        expected = await client.generate(exported.sources, **stops, **options)
        for ids, generation in zip(exported.sources, expected, strict=True):
            async with client.generate_stream(ids, **stops, **options) as stream:
                pieces = [piece async for piece in stream]
            assert stream.result.hypotheses == generation.hypotheses
            assert "".join(piece.text for piece in pieces) == generation.text
            (best,) = generation.hypotheses
            assert best.text.endswith(best.stop_sequence) or not is_included
    assert {one.hypotheses[0].finish_reason for one in expected} >= {"stop_sequence"}


async def test_neighbours_with_and_without_sequences_share_a_batch(
    exported: Exported, serving: MakeServer
) -> None:
    """Each input ends by its own sequences; results are those of calls alone."""
    async with (
        serving(models=exported.store) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        plain = await client.generate(exported.sources, max_new_tokens=MAX_NEW_TOKENS, num_beams=1)
        sequences = pick_sequences(plain)
        alone = [
            (
                await client.generate(
                    [ids], max_new_tokens=MAX_NEW_TOKENS, num_beams=2, stop_sequences=[one]
                )
            )[0]
            for ids, one in zip(exported.sources, sequences, strict=False)
        ]
        reply = await server.generation.Generate(
            generation_pb2.GenerateRequest(
                inputs=[
                    source(ids, num_beams=2, stop_sequences=[one])
                    for ids, one in zip(exported.sources, sequences, strict=False)
                ]
                + [source(ids, num_beams=1) for ids in exported.sources],
                options=generation_pb2.GenerateOptions(max_new_tokens=MAX_NEW_TOKENS),
            )
        )
    texts = [result.hypotheses[0].text for result in reply.results]
    assert texts == [one.text for one in alone] + [one.text for one in plain]
