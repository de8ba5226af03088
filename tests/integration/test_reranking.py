"""Reranking over gRPC, against the cross-encoder of ``sentence-transformers``."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from seqserve.task_record import Task
from seqserve.v1 import encoding_pb2, model_pb2
from seqserve_export.exporter import export_model
from serving import MakeServer, RunningServer, status_of

QUERY = "where did the cat sleep"
DOCUMENTS = [
    "a dog slept under the old table",
    "the cat sat on the mat",
    "rain fell over the hills and nobody walked along the river",
    "the cat sat on the mat",
    "cats",
]


async def rerank(running: RunningServer, **fields: Any) -> Any:
    """The ranked documents of a request."""
    values = {"query": QUERY, "documents": DOCUMENTS} | fields
    return (await running.encoding.Rerank(encoding_pb2.RerankRequest(**values))).results


@pytest.mark.parametrize("activation", ["UNSPECIFIED", "SIGMOID", "IDENTITY"])
async def test_ranks_are_those_of_the_cross_encoder(
    activation: str, heads: Path, head_sources: dict[Task, Path], serving: MakeServer
) -> None:
    """Order, scores, texts; the model's own activation is the sigmoid."""
    reference = CrossEncoder(str(head_sources[Task.RERANK]), device="cpu")
    function = torch.nn.Identity() if activation == "IDENTITY" else torch.nn.Sigmoid()
    expected: Any = reference.rank(QUERY, DOCUMENTS, return_documents=True, activation_fn=function)
    async with serving(models=heads) as running:
        results = await rerank(
            running, activation=f"RERANKING_ACTIVATION_{activation}", return_documents=True
        )
    assert [one.index for one in results] == [one["corpus_id"] for one in expected]
    assert [one.document for one in results] == [one["text"] for one in expected]
    np.testing.assert_allclose(
        [one.score for one in results], [one["score"] for one in expected], atol=2e-5
    )


async def test_documents_can_be_chosen_and_kept_in_order(heads: Path, serving: MakeServer) -> None:
    """The best ``top_n``, best first or in the order of the documents; texts on request only."""
    async with serving(models=heads) as running:
        whole = await rerank(running)
        best = await rerank(running, top_n=3)
        kept = await rerank(running, top_n=3, keep_order=True)
        everything = await rerank(running, keep_order=True)
    indices = [one.index for one in whole]
    assert [one.index for one in best] == indices[:3]
    assert [one.index for one in kept] == sorted(indices[:3])
    assert [one.index for one in everything] == [0, 1, 2, 3, 4]
    # Of equal documents the first comes first.
    assert indices.index(1) + 1 == indices.index(3)
    assert {one.document for one in whole} == {""}
    scores = {one.index: one.score for one in whole}
    assert {one.index: one.score for one in everything} == scores


async def test_scores_do_not_depend_on_other_documents(heads: Path, serving: MakeServer) -> None:
    """Bit-identical alone and together."""
    async with serving(models=heads) as running:
        together = await rerank(running, keep_order=True)
        alone = [(await rerank(running, documents=[one]))[0] for one in DOCUMENTS]
    assert [one.score for one in together] == [one.score for one in alone]


async def test_long_pairs_are_cut_as_by_the_cross_encoder(
    heads: Path, head_sources: dict[Task, Path], serving: MakeServer
) -> None:
    """The longer text first; the reply says how many tokens were cut of which document."""
    reference = CrossEncoder(str(head_sources[Task.RERANK]), device="cpu", max_length=80)
    query = " ".join(["the cat"] * 25)
    documents = [" ".join(["dog"] * length) for length in (20, 60, 90)]
    expected = reference.predict([(query, one) for one in documents])
    async with serving(models=heads) as running:
        results = await rerank(
            running, query=query, documents=documents, keep_order=True, truncate=True
        )
    np.testing.assert_allclose([one.score for one in results], expected, atol=2e-5)
    assert [one.token_count for one in results] == [73, 80, 80]
    assert [one.truncated_token_count for one in results] == [0, 33, 63]


@pytest.fixture(scope="module")
def prompted_source(
    head_sources: dict[Task, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A cross-encoder that was saved with prompts."""
    encoder = CrossEncoder(
        str(head_sources[Task.RERANK]),
        device="cpu",
        prompts={"question": "small models read ", "statement": ""},
        default_prompt_name="question",
    )
    folder = tmp_path_factory.mktemp("prompted")
    encoder.save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def prompted(prompted_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with it as ``prompted``."""
    torch.set_num_threads(1)
    store = tmp_path_factory.mktemp("store")
    export_model(prompted_source, store, name="prompted")
    return store


@pytest.mark.parametrize("name", [None, "question", "statement", ""])
async def test_prompts_are_those_of_the_cross_encoder(
    name: str | None, prompted_source: Path, prompted: Path, serving: MakeServer
) -> None:
    """Before the query alone: by name, by default, or none at all."""
    reference = CrossEncoder(str(prompted_source), device="cpu")
    options: Any = {"prompt": ""} if name == "" else {"prompt_name": name}
    expected: Any = reference.rank(QUERY, DOCUMENTS, **options)
    scores = reference.predict([(QUERY, one) for one in DOCUMENTS], **options)
    async with serving(models=prompted) as running:
        results = await rerank(running, prompt_name=name)
        whole = await rerank(running, prompt_name=name, keep_order=True)
        model = (await running.model.GetModel(model_pb2.GetModelRequest())).model
    assert [one.index for one in results] == [one["corpus_id"] for one in expected]
    np.testing.assert_allclose(
        [one.score for one in results], [one["score"] for one in expected], atol=2e-5
    )
    np.testing.assert_allclose([one.score for one in whole], scores, atol=2e-5)
    assert dict(model.reranking.prompts) == {"question": "small models read ", "statement": ""}
    assert model.reranking.default_prompt_name == "question"


async def test_prompts_count_as_tokens_of_the_query(prompted: Path, serving: MakeServer) -> None:
    """Within the limit, and cut with it."""
    async with serving(models=prompted) as running:
        (plain,) = await rerank(running, documents=DOCUMENTS[:1], prompt_name="")
        (whole,) = await rerank(running, documents=DOCUMENTS[:1])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rerank(running, prompt_name="answer")
    assert whole.token_count > plain.token_count
    assert status_of(caught.value) == (
        "INVALID_ARGUMENT: `prompt_name` must be one of the model's prompts or empty, but is "
        "'answer'; they are: question, statement"
    )


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"documents": []}, "`documents` must not be empty"),
    ({"query": ""}, "`query` must not be empty"),
    ({"documents": ["a", ""]}, "`documents[1]` must not be empty"),
    (
        {"top_n": 6},
        "`top_n` must be at least 1 and at most 5, the number of documents, but is 6",
    ),
    (
        {"activation": 5},
        "`activation` must be one of 0 (RERANKING_ACTIVATION_UNSPECIFIED), 1 "
        "(RERANKING_ACTIVATION_SIGMOID), 2 (RERANKING_ACTIVATION_IDENTITY), but is 5",
    ),
    (
        {"documents": ["cat", "cat " * 90]},
        "`documents[1]` must have at most 80 tokens together with `query`, but has 104; shorten "
        "it, or set `truncate` to have its end cut",
    ),
    (
        {"documents": ["cat"] * 9},
        "`documents` must hold at most 8 entries (max_inputs_per_request), but holds 9",
    ),
]


async def test_invalid_requests_name_field_rule_and_value(heads: Path, serving: MakeServer) -> None:
    """INVALID_ARGUMENT with what is wrong, and the places are free again."""
    async with serving(models=heads, max_inputs_per_request=8) as running:
        for fields, message in REFUSALS:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await rerank(running, **fields)
            assert status_of(caught.value) == f"INVALID_ARGUMENT: {message}"
        assert running.num_outstanding == 0
