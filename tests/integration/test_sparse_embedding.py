"""Sparse embeddings over gRPC, against the sparse encoder of ``sentence-transformers``."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder

from seqserve.client import AsyncClient, SparseSettings
from seqserve.v1 import encoding_pb2, model_pb2
from seqserve_export.exporter import export_model
from serving import MakeServer, RunningServer, status_of
from tiny_encoder_folder import VOCABULARY_SIZE
from tiny_sparse_folder import make_sparse_folder

TEXTS = ["the cat sat on the mat", "dog", "rain fell over the hills and nobody walked", "cats"]
PROMPTS = {"query": "small models ", "document": ""}
MAX_LENGTH = 40
LONG = "the cat sat on the mat while a dog slept under the old table " * 6


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a limit of weights, and prompts."""
    torch.set_num_threads(1)
    return make_sparse_folder(
        tmp_path_factory.mktemp("source") / "splade",
        prompts=PROMPTS,
        default_prompt_name="query",
        max_active_dims=12,
        max_length=MAX_LENGTH,
    )


@pytest.fixture(scope="module")
def sparse(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the model ``splade``."""
    store = tmp_path_factory.mktemp("store")
    export_model(source, store, name="splade")
    return store


@pytest.fixture(scope="module")
def reference(source: Path) -> SparseEncoder:
    """The library over the folder."""
    return SparseEncoder(str(source), device="cpu")


async def embed(running: RunningServer, texts: list[str] = TEXTS, **fields: Any) -> Any:
    """The embeddings of texts."""
    request = encoding_pb2.EmbedRequest(inputs=texts, **fields)
    return (await running.encoding.Embed(request)).embeddings


def to_dense(messages: Any) -> np.ndarray:
    """The vectors of embeddings or windows with their zeros, [N, V]."""
    dense = np.zeros((len(messages), VOCABULARY_SIZE), np.float32)
    for row, message in zip(dense, messages, strict=True):
        assert not message.values
        assert list(message.sparse.indices) == sorted(set(message.sparse.indices))
        row[list(message.sparse.indices)] = message.sparse.values
    return dense


@pytest.mark.parametrize("limit", [None, 1, 5, VOCABULARY_SIZE])
@pytest.mark.parametrize("prompt", [None, "", "document"])
async def test_weights_are_those_of_the_library(
    limit: int | None,
    prompt: str | None,
    sparse: Path,
    reference: SparseEncoder,
    serving: MakeServer,
) -> None:
    """Which entries and how much, with the model's limit or another, with and without a prompt."""
    options: Any = {"prompt": ""} if prompt == "" else {"prompt_name": prompt}
    expected = reference.encode(
        TEXTS, max_active_dims=limit, convert_to_sparse_tensor=False, **options
    )
    async with serving(models=sparse) as running:
        found = to_dense(await embed(running, max_active_dims=limit, prompt_name=prompt))
    np.testing.assert_allclose(found, np.asarray(expected), atol=2e-5)
    assert (np.count_nonzero(found, axis=1) <= (limit or 12)).all()


async def test_weights_are_the_same_alone_and_in_any_batch(
    sparse: Path, serving: MakeServer
) -> None:
    """Bit-identical alone, together and across concurrent calls."""
    texts = [*TEXTS, "a", LONG[:90]] * 4
    async with serving(models=sparse) as running:
        alone = [(await embed(running, [text]))[0].sparse for text in texts]
        together = [one.sparse for one in await embed(running, texts)]
        apart = await asyncio.gather(*(embed(running, [text]) for text in texts))
    assert alone == together
    assert alone == [one.sparse for (one,) in apart]


async def test_tokens_and_length_come_on_request(sparse: Path, serving: MakeServer) -> None:
    """The entries of the vocabulary; what is left of the weights is scaled to length 1."""
    async with serving(models=sparse) as running:
        tokenizer = running.registry.find("splade", "", None).source_tokenizer
        (plain,) = await embed(running, TEXTS[:1], max_active_dims=4)
        (unit,) = await embed(
            running, TEXTS[:1], max_active_dims=4, normalize=True, return_tokens=True
        )
    assert not plain.sparse.tokens
    assert list(unit.sparse.tokens) == [tokenizer.entry(one) for one in unit.sparse.indices]
    assert list(unit.sparse.indices) == list(plain.sparse.indices)
    length = np.linalg.norm(plain.sparse.values)
    np.testing.assert_allclose(
        unit.sparse.values, np.array(plain.sparse.values) / length, rtol=1e-6
    )


async def test_windows_keep_the_largest_weights(sparse: Path, serving: MakeServer) -> None:
    """Of each entry the largest in any window, as if the text had been read at once."""
    fields = {"stride": 10, "prompt_name": "", "return_windows": True}
    async with serving(models=sparse) as running:
        (whole,) = await embed(running, [LONG], max_active_dims=VOCABULARY_SIZE, **fields)
        (few,) = await embed(running, [LONG], max_active_dims=3, **fields)
        first = LONG[: whole.windows[0].end_offset]
        (alone,) = await embed(running, [first], prompt_name="", max_active_dims=VOCABULARY_SIZE)
    assert len(whole.windows) > 2
    windows = to_dense(whole.windows)
    (dense,) = to_dense([whole])
    assert np.array_equal(dense, windows.max(axis=0))
    assert whole.windows[0].sparse == alone.sparse
    assert [len(one.sparse.indices) for one in (few, *few.windows)] == [3] * (1 + len(few.windows))
    assert set(few.sparse.indices) == set(np.argsort(-dense, kind="stable")[:3].tolist())


async def test_states_of_tokens_come_beside_weights(sparse: Path, serving: MakeServer) -> None:
    """Those of the encoder, of its own width."""
    async with serving(models=sparse) as running:
        (plain,) = await embed(running, TEXTS[:1])
        (whole,) = await embed(running, TEXTS[:1], return_token_embeddings=True)
    assert whole.sparse == plain.sparse
    assert {len(one.values) for one in whole.token_embeddings} == {32}
    assert len(whole.token_embeddings) == whole.token_count


async def test_model_says_that_it_is_sparse(sparse: Path, serving: MakeServer) -> None:
    """With the size of the vocabulary, and its limit of weights."""
    async with serving(models=sparse) as running:
        reply = await running.model.GetModel(model_pb2.GetModelRequest())
    settings = reply.model.embedding
    assert (settings.embedding_size, settings.pooling) == (VOCABULARY_SIZE, "splade_max")
    assert (settings.sparse.activation, settings.sparse.max_active_dims) == ("relu", 12)
    assert not settings.normalize


async def test_clients_return_arrays(
    sparse: Path, reference: SparseEncoder, serving: MakeServer
) -> None:
    """From a call and from a stream; a vector can be had with its zeros."""
    expected = np.asarray(reference.encode(TEXTS, convert_to_sparse_tensor=False))
    async with (
        serving(models=sparse) as running,
        AsyncClient(f"127.0.0.1:{running.ports.grpc}") as client,
    ):
        embeddings = await client.embed(TEXTS, return_tokens=True)
        streamed = [one async for one in client.embed_stream([TEXTS[:2], TEXTS[2:]])]
        info = await client.get_model("splade")
    found = np.stack([one.to_dense(VOCABULARY_SIZE) for one in embeddings.sparse])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert embeddings.vectors.shape == (len(TEXTS), 0)
    first = embeddings.sparse[0]
    assert [str(one.dtype) for one in (first.indices, first.values)] == ["int32", "float32"]
    assert len(first.tokens) == len(first.indices)
    parts = [vector for one in streamed for vector in one.sparse]  # type: ignore[union-attr]
    assert np.array_equal([one.to_dense(VOCABULARY_SIZE) for one in parts], found)
    assert info.embedding is not None
    assert info.embedding.sparse == SparseSettings(activation="relu", max_active_dims=12)


REFUSALS: list[tuple[dict[str, Any], str]] = [
    (
        {"dimensions": 8},
        "`dimensions` is not supported for this model, whose embeddings are sparse; set "
        "`max_active_dims` for fewer weights",
    ),
    (
        {"max_active_dims": 0},
        f"`max_active_dims` must be at least 1 and at most {VOCABULARY_SIZE}, the model's "
        "embedding_size, but is 0",
    ),
    (
        {"max_active_dims": VOCABULARY_SIZE + 1},
        f"`max_active_dims` must be at least 1 and at most {VOCABULARY_SIZE}, the model's "
        f"embedding_size, but is {VOCABULARY_SIZE + 1}",
    ),
    (
        {"texts": [LONG[:100]]},
        "`inputs[0]` must have at most 40 tokens, but has ",
    ),
]


async def test_invalid_requests_name_field_rule_and_value(
    sparse: Path, serving: MakeServer
) -> None:
    """INVALID_ARGUMENT with what is wrong, and the places are free again."""
    async with serving(models=sparse) as running:
        for fields, message in REFUSALS:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await embed(running, **fields)
            assert status_of(caught.value).startswith(f"INVALID_ARGUMENT: {message}")
        assert running.num_outstanding == 0


@pytest.mark.parametrize(("field", "value"), [("max_active_dims", 1), ("return_tokens", True)])
async def test_dense_models_refuse_options_of_sparse_ones(
    field: str, value: Any, serving: MakeServer
) -> None:
    """They would have no effect."""
    async with serving() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await embed(running, ["a"], model_name="sentence", **{field: value})
    assert status_of(caught.value) == (
        f"INVALID_ARGUMENT: `{field}` has an effect on sparse embeddings only, but those of this "
        "model are dense; leave it out"
    )


async def test_replies_have_a_limit(sparse: Path, serving: MakeServer) -> None:
    """How many weights there are, the model decides; the message says what to do."""
    async with serving(models=sparse, max_message_bytes=1024) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await embed(running, ["dog"] * 40)
        assert len(await embed(running, ["dog"] * 16, max_active_dims=1)) == 16
    text = status_of(caught.value)
    assert text.startswith("INVALID_ARGUMENT: the embeddings take ")
    assert text.endswith(
        "bytes, but a message may have 1024 (max_message_bytes); set or lower `max_active_dims`, "
        "or send fewer texts"
    )


async def test_sums_are_not_read_in_windows(tmp_path: Path, serving: MakeServer) -> None:
    """Tokens in two windows would count twice; without them sums are embedded."""
    export_model(make_sparse_folder(tmp_path / "source", "sum"), tmp_path / "store")
    reference = SparseEncoder(str(tmp_path / "source"), device="cpu")
    expected = np.asarray(reference.encode(TEXTS, convert_to_sparse_tensor=False))
    async with serving(models=tmp_path / "store") as running:
        np.testing.assert_allclose(to_dense(await embed(running)), expected, atol=2e-5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await embed(running, stride=1)
    assert status_of(caught.value) == (
        "INVALID_ARGUMENT: `stride` is not supported for this model, which adds the weights of "
        "tokens up (splade_sum): those of tokens in two windows would count twice; send shorter "
        "texts, or set `truncate`"
    )
