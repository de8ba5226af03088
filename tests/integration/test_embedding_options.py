"""Prompts, dimensions, windows and token embeddings, against ``sentence-transformers``."""

import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from seqserve.v1 import encoding_pb2, model_pb2
from seqserve_export.exporter import export_model
from serving import MakeServer, RunningServer, status_of
from tiny_sentence_folder import make_tiny_sentence_folder, write_json

TEXTS = ["a b c", "cat dog", "c b a c b a z"]
PROMPTS = {"query": "q u : ", "document": ""}
MAX_LENGTH = 32


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder with prompts."""
    torch.set_num_threads(1)
    folder = make_tiny_sentence_folder(tmp_path_factory.mktemp("source") / "prompted", 4)
    settings = {"prompts": PROMPTS, "default_prompt_name": "query"}
    write_json(folder / "config_sentence_transformers.json", settings)
    return folder


@pytest.fixture(scope="module")
def prompted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the model ``prompted``."""
    store = tmp_path_factory.mktemp("store")
    export_model(source, store)
    return store


@pytest.fixture(scope="module")
def reference(source: Path) -> SentenceTransformer:
    """The library over the folder."""
    return SentenceTransformer(str(source), device="cpu")


async def embed(running: RunningServer, texts: list[str] = TEXTS, **fields: Any) -> Any:
    """The embeddings of texts."""
    request = encoding_pb2.EmbedRequest(inputs=texts, **fields)
    return (await running.encoding.Embed(request)).embeddings


def vectors(embeddings: Any) -> np.ndarray:
    """Their numbers, [N, M]."""
    return np.array([one.values for one in embeddings])


@pytest.mark.parametrize("name", [None, "query", "document", ""])
async def test_prompts_are_those_of_the_library(
    name: str | None, prompted: Path, reference: SentenceTransformer, serving: MakeServer
) -> None:
    """By name, by default, or none at all."""
    expected = reference.encode(TEXTS, prompt_name=name) if name else reference.encode(TEXTS)
    if name == "":
        expected = reference.encode(TEXTS, prompt="")
    async with serving(models=prompted) as running:
        embeddings = await embed(running, prompt_name=name)
        model = (await running.model.GetModel(model_pb2.GetModelRequest())).model
    np.testing.assert_allclose(vectors(embeddings), expected, atol=2e-5)
    assert dict(model.embedding.prompts) == PROMPTS
    assert model.embedding.default_prompt_name == "query"
    assert model.embedding.token_embedding_size == 32


async def test_dimensions_are_cut_and_scaled_again(
    prompted: Path, reference: SentenceTransformer, serving: MakeServer
) -> None:
    """The first numbers, of length 1 where the whole would be."""
    expected = reference.encode(TEXTS, truncate_dim=8, normalize_embeddings=True)
    async with serving(models=prompted) as running:
        embeddings = await embed(running, dimensions=8)
        plain = await embed(running, dimensions=8, normalize=False)
        whole = await embed(running, normalize=False)
    np.testing.assert_allclose(vectors(embeddings), expected, atol=2e-5)
    assert np.array_equal(vectors(plain), vectors(whole)[:, :8])


@pytest.mark.parametrize("side", ["right", "left"])
async def test_long_texts_are_cut_on_either_side(
    side: str, prompted: Path, serving: MakeServer
) -> None:
    """The rest embeds as by itself, and the reply counts what was cut."""
    words = [chr(ord("a") + index % 26) for index in range(40)]
    rest = words[:30] if side == "right" else words[-30:]
    async with serving(models=prompted) as running:
        (cut,) = await embed(
            running,
            [" ".join(words)],
            truncate=True,
            truncation_direction=f"TRUNCATION_DIRECTION_{side.upper()}",
            prompt_name="",
        )
        (short,) = await embed(running, [" ".join(rest)], prompt_name="")
    assert list(cut.values) == list(short.values)
    assert (cut.token_count, cut.truncated_token_count) == (MAX_LENGTH, 10)


async def test_windows_are_pooled_by_length(prompted: Path, serving: MakeServer) -> None:
    """Parts with a stride in common embed as by themselves; their mean is scaled again."""
    words = [chr(ord("a") + index % 26) for index in range(70)]
    text = " ".join(words)
    fields = {"prompt_name": "", "dimensions": 16}
    async with serving(models=prompted) as running:
        embeddings = await embed(running, [text, "a b"], stride=10, return_windows=True, **fields)
        parts = [words[start : start + 30] for start in (0, 20, 40)]
        alone = vectors(await embed(running, [" ".join(part) for part in parts], **fields))
        (plain,) = await embed(running, ["a b"], **fields)
        (quiet, _) = await embed(running, [text, "a b"], stride=10, **fields)
    whole, short = embeddings
    assert np.array_equal([one.values for one in whole.windows], alone)
    assert [text[one.start_offset : one.end_offset] for one in whole.windows] == [
        " ".join(part) for part in parts
    ]
    assert [one.token_count for one in whole.windows] == [32, 32, 32]
    mean = alone.mean(axis=0)
    np.testing.assert_allclose(whole.values, mean / np.linalg.norm(mean), atol=1e-6)
    assert (whole.token_count, whole.truncated_token_count) == (96, 0)
    assert list(short.values) == list(plain.values)
    assert len(short.windows) == 1
    assert list(quiet.values) == list(whole.values)
    assert not quiet.windows


async def test_offsets_are_those_of_the_input(prompted: Path, serving: MakeServer) -> None:
    """A prompt before it does not shift them."""
    async with serving(models=prompted) as running:
        (whole,) = await embed(running, ["a b " * 20], stride=0, return_windows=True)
        (short,) = await embed(running, ["cat dog"], return_token_embeddings=True)
    assert (whole.windows[0].start_offset, whole.windows[-1].end_offset) == (0, 79)
    places = [
        (one.token.text, one.token.start_offset, one.token.end_offset)
        for one in short.token_embeddings
    ]
    assert places[-3:] == [("cat", 0, 3), ("dog", 4, 7), ("[SEP]", 0, 0)]
    assert {place[1:] for place in places[:-3]} == {(0, 0)}
    assert [one.token.is_special for one in short.token_embeddings] == [
        True,
        *[False] * (len(places) - 2),
        True,
    ]


async def test_token_embeddings_are_those_of_the_library(
    prompted: Path, reference: SentenceTransformer, serving: MakeServer
) -> None:
    """The last layer's states, beside the same embedding as without."""
    expected: Any = reference.encode(TEXTS, output_value="token_embeddings")
    async with serving(models=prompted) as running:
        embeddings = await embed(running, return_token_embeddings=True)
        plain = await embed(running)
    for embedding, states in zip(embeddings, expected, strict=True):
        found = [one.values for one in embedding.token_embeddings]
        np.testing.assert_allclose(found, states.numpy(), atol=1e-4)
    assert np.array_equal(vectors(embeddings), vectors(plain))


LONG = "a " * 60
REFUSALS: list[tuple[dict[str, Any], str]] = [
    (
        {"prompt_name": "passage"},
        "`prompt_name` must be one of the model's prompts or empty, but is 'passage'; they are: "
        "document, query",
    ),
    (
        {"dimensions": 33},
        "`dimensions` must be at least 1 and at most 32, the model's embedding_size, but is 33",
    ),
    (
        {"return_windows": True},
        "`return_windows` has an effect with `stride` only; set `stride`, or leave it out",
    ),
    (
        {"stride": 30},
        "`stride` must be at least 0 and below 30, the tokens of a text that a window has room "
        "for, but is 30",
    ),
    (
        {"stride": 1, "return_token_embeddings": True},
        "`return_token_embeddings` cannot be combined with `stride`: a token in two windows has "
        "two states; leave one of them out",
    ),
    (
        {"texts": ["a " * 20], "return_token_embeddings": True},
        "`return_token_embeddings` may return at most 1024 bytes (max_message_bytes), but 25 "
        "tokens of 32 numbers take 3200; send fewer or shorter texts",
    ),
    (
        {"texts": ["a", LONG]},
        "`inputs[1]` must have at most 32 tokens, but has 65; shorten it, or set `truncate` to "
        "have its end cut",
    ),
]


async def test_invalid_requests_name_field_rule_and_value(
    prompted: Path, serving: MakeServer
) -> None:
    """INVALID_ARGUMENT with what is wrong, and the places are free again."""
    async with serving(models=prompted, max_message_bytes=1024) as running:
        for fields, message in REFUSALS:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await embed(running, **fields)
            assert status_of(caught.value) == f"INVALID_ARGUMENT: {message}"
        assert running.num_outstanding == 0


async def test_older_exports_return_no_token_embeddings(
    source: Path, tmp_path: Path, serving: MakeServer
) -> None:
    """Without their size, a reply could grow beyond every limit."""
    export_model(source, tmp_path)
    path = tmp_path / "prompted" / "1" / "seqserve.json"
    manifest = json.loads(path.read_bytes())
    del manifest["embedding"]["token_embedding_size"]
    write_json(path, manifest)
    async with serving(models=tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await embed(running, return_token_embeddings=True)
    assert status_of(caught.value) == (
        "INVALID_ARGUMENT: `return_token_embeddings` is not supported for this model, which was "
        "exported without the size of its token embeddings; export it again, or leave it out"
    )
