"""Variants of the Transformer are exported, served and looked into like any other model.

One server holds a tiny one of each way to decode or encode that is not the Transformer's.
"""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from seqserve.attention_kind import AttentionKind
from seqserve.client import AsyncClient, CallError
from seqserve.manifest import read_manifest
from seqserve.v1 import generation_pb2
from seqserve_export.attention_recording import recording_attention
from seqserve_export.checkpoint import load_checkpoint
from seqserve_export.exporter import export_model
from seqserve_export.recipes.decoding import decode_batch
from seqserve_export.recipes.pronunciation_tokenizer import END_ID
from seqserve_export.variants.read_word import main as read_word
from seqserve_export.verification import make_row
from serving import MakeServer, RunningServer, source
from tiny_variant import make_tiny_folder, make_tiny_sources

NAMES = ("concatenation", "image", "recurrent-attention")
KINDS = {
    "concatenation": ["encoder_self", "decoder_self", "cross"],
    "recurrent-attention": ["cross"],
}
"""What is shown of two of them: graphs that explain take the longest to trace."""
NUM_BEAMS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoints."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: make_tiny_folder(root / name, name) for name in NAMES}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all of them."""
    store = tmp_path_factory.mktemp("variants")
    for name, folder in folders.items():
        export_model(folder, store, name=name, is_explained=name in KINDS)
    return store


def test_manifests_tell_what_there_is_to_show(models: Path) -> None:
    """Kinds of attention that a variant has."""
    for name, kinds in KINDS.items():
        manifest = read_manifest(models / name / "1")
        assert manifest.family == "variant"
        assert manifest.explanation is not None
        assert [str(kind) for kind in manifest.explanation.layers] == kinds


def test_graphs_are_independent_of_the_batch(models: Path) -> None:
    """Export found no bit that differs between a row alone and in a batch of 64."""
    for name in NAMES:
        assert read_manifest(models / name / "1").is_batch_invariant, name


async def generate(
    server: RunningServer, name: str, sources: list[list[int]], num_beams: int
) -> list[generation_pb2.Hypothesis]:
    """The best hypothesis of each source, with its score."""
    request = generation_pb2.GenerateRequest(
        model_name=name,
        inputs=[source(tokens, num_beams=num_beams, return_scores=True) for tokens in sources],
    )
    response = await server.generation.Generate(request)
    return [result.hypotheses[0] for result in response.results]


async def test_served_targets_are_those_of_torch(
    serving: MakeServer, models: Path, folders: dict[str, Path]
) -> None:
    """Greedy and with beams, whose rows continue each other's states."""
    async with serving(models=models) as server:
        for name in NAMES:
            checkpoint, sources = load_checkpoint(folders[name]), make_tiny_sources(name)
            for num_beams in (1, NUM_BEAMS):
                expected = decode_batch(
                    checkpoint.model, sources, checkpoint.generation, num_beams=num_beams
                )
                for found, wanted in zip(
                    await generate(server, name, sources, num_beams), expected, strict=True
                ):
                    tokens = [token for token in found.token_ids if token != END_ID]
                    assert tokens == wanted, (name, num_beams)


async def test_neighbours_change_no_bit(serving: MakeServer, models: Path) -> None:
    """The score of a source alone is, to the last bit, that among others."""
    async with serving(models=models, lanes=1) as server:
        for name in NAMES:
            sources = make_tiny_sources(name)
            together = await generate(server, name, sources, NUM_BEAMS)
            for tokens, found in zip(sources, together, strict=True):
                (alone,) = await generate(server, name, [tokens], NUM_BEAMS)
                assert (alone.token_ids, alone.score) == (found.token_ids, found.score), name


async def test_attention_is_that_of_torch(
    serving: MakeServer, models: Path, folders: dict[str, Path]
) -> None:
    """Every kind that a variant has; rows sum to 1."""
    async with (
        serving(models=models) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        for name in KINDS:
            model, tokens = load_checkpoint(folders[name]).model, make_tiny_sources(name)[0]
            found = await client.attend(tokens, model=name)
            rows, lengths = make_row(tokens)
            target, target_lengths = make_row(
                [token.token_id for token in found.decoder_input_tokens]
            )
            with torch.inference_mode(), recording_attention() as record:
                model(rows, lengths, target, target_lengths)
            expected = iter(model.sort_attention(record, len(tokens)))
            told = {
                AttentionKind.ENCODER_SELF: found.encoder_self,
                AttentionKind.DECODER_SELF: found.decoder_self,
                AttentionKind.CROSS: found.cross,
            }
            sums = {}
            for kind, weights in told.items():
                assert (weights is not None) == (kind in model.attention_layers)
                if weights is not None:
                    wanted = np.stack([next(expected)[0].numpy() for _ in weights.weights])
                    assert weights.weights == pytest.approx(wanted, abs=1e-4)
                    sums[kind] = weights.weights.sum(axis=-1)
            if name == "concatenation":
                sums[AttentionKind.CROSS] += sums.pop(AttentionKind.DECODER_SELF)
            for kind, total in sums.items():
                assert total == pytest.approx(1.0, abs=1e-5), (name, kind)


async def test_kind_that_a_variant_lacks_is_refused(serving: MakeServer, models: Path) -> None:
    """A recurrent decoder does not look at itself; the message lists what there is."""
    async with (
        serving(models=models) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        tokens = make_tiny_sources("recurrent-attention")[0]
        with pytest.raises(
            CallError, match=r"must be one of the model's, 3 \(ATTENTION_KIND_CROSS"
        ):
            await client.attend(tokens, model="recurrent-attention", kinds=["decoder_self"])
        info = (await client.get_model("recurrent-attention")).attention
    assert info is not None
    assert (info.decoder_layer_count, info.decoder_self_layer_count) == (1, 0)
    assert info.encoder_layer_count == 0


async def test_rendered_word_is_sent_as_token_ids(serving: MakeServer, models: Path) -> None:
    """The example shows the picture, and passes on what the server refuses."""
    async with serving(models=models) as server:
        arguments = ["so", "--target", f"127.0.0.1:{server.ports.grpc}"]
        result = await asyncio.to_thread(CliRunner().invoke, read_word, arguments)
    assert result.output.count("#") > 15
    # It was exported without what would show where letters were seen.
    assert "model 'image' cannot tell its attention" in result.output
    assert result.exit_code == 1


def test_word_without_letterforms_is_refused() -> None:
    """Before anything is sent."""
    result = CliRunner().invoke(read_word, ["café"])
    assert result.exit_code == 2
    assert "'é' cannot be rendered" in result.output
