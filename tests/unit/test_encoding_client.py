"""The calls to encoder models, of both clients, against a server with canned answers."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from fake_server import FakeServer, Refusal
from seqserve.client import (
    AsyncClient,
    CallError,
    Classification,
    ClassificationSettings,
    Client,
    Embeddings,
    Entity,
    LabelScore,
    MaskFilling,
    MaskFillingSettings,
    MaskToken,
    RankedDocument,
    RerankingSettings,
    Timing,
    TokenClassification,
    TokenClassificationSettings,
)
from seqserve.client.embedding_messages import to_embeddings
from seqserve.client.model_messages import to_models
from seqserve.v1 import encoding_pb2, model_pb2, priority_pb2

TIMING = Timing(0.001, 0.002, 0.0)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A running fake server."""
    with FakeServer() as running:
        yield running


def test_results_are_parsed_whole(server: FakeServer) -> None:
    """Every field of the replies arrives; what was not asked for is None or empty."""
    with Client(server.target) as client:
        (labels,) = client.classify("long")
        (entities,) = client.classify_tokens("Élong", aggregation_strategy="none")
        ranked = client.rerank("q", ["a", "long"], return_documents=True)
        (filling,) = client.fill_mask("long")
    scores = (LabelScore("l", 0.75, None), LabelScore("g", 0.25, None))
    assert labels == Classification(scores, 4, 3, TIMING)
    assert labels.label == "l"
    entity = Entity("LOC", 0.5, "é", 0, 1, 0, 2, None)
    assert entities == TokenClassification((entity,), 5, 0, 1, TIMING)
    assert ranked == [
        RankedDocument(1, 0.5, "long", 4, 3, TIMING),
        RankedDocument(0, 0.0, "a", 1, 0, TIMING),
    ]
    assert filling == MaskFilling(((MaskToken(7, "cat", 0.5, ""),),), 4, 3, TIMING)


def test_arguments_become_fields(server: FakeServer) -> None:
    """Each of them, and enums by name."""
    shared: Any = {
        "model": "m",
        "version": "2",
        "truncate": True,
        "truncation_direction": "left",
        "priority": "high",
    }
    with Client(server.target) as client:
        client.classify(
            ["a", ("b", "c")], function_to_apply="sigmoid", top_k=2, return_logits=True, **shared
        )
        client.classify_tokens(
            ["a"], aggregation_strategy="max", ignore_labels=[], stride=0, **shared
        )
        client.rerank(
            "q", ["a"], activation="identity", top_n=1, keep_order=True, prompt_name="", **shared
        )
        client.fill_mask(["a"], top_k=3, targets=["x"], return_sequences=True, **shared)
        client.embed(
            "a", dimensions=2, prompt_name="", stride=1, return_windows=True, priority="high"
        )
    classify, tokens, rerank, fill, embed = server.requests
    for request in (classify, tokens, rerank, fill):
        assert (request.model_name, request.model_version, request.truncate) == ("m", "2", True)
        assert request.truncation_direction == encoding_pb2.TRUNCATION_DIRECTION_LEFT
        assert request.priority == priority_pb2.PRIORITY_HIGH
    assert [(one.text, one.HasField("text_pair")) for one in classify.inputs] == [
        ("a", False),
        ("b", True),
    ]
    assert classify.function_to_apply == encoding_pb2.SCORE_FUNCTION_SIGMOID
    assert (classify.top_k, classify.return_logits) == (2, True)
    assert tokens.aggregation_strategy == encoding_pb2.AGGREGATION_STRATEGY_MAX
    assert tokens.HasField("ignore_labels")
    assert (tokens.HasField("stride"), tokens.stride) == (True, 0)
    assert rerank.activation == model_pb2.RERANKING_ACTIVATION_IDENTITY
    assert (rerank.top_n, rerank.keep_order, rerank.return_documents) == (1, True, False)
    assert (rerank.HasField("prompt_name"), rerank.prompt_name) == (True, "")
    assert (fill.top_k, list(fill.targets), fill.return_sequences) == (3, ["x"], True)
    assert (embed.HasField("prompt_name"), embed.dimensions, embed.stride) == (True, 2, 1)
    assert embed.return_windows


def test_unset_arguments_stay_unset(server: FakeServer) -> None:
    """The server's defaults apply."""
    with Client(server.target) as client:
        client.classify("a")
        client.classify_tokens("a")
        client.rerank("q", ["a"])
        client.fill_mask("a")
    names = [{field.name for field, _ in one.ListFields()} for one in server.requests]
    assert names == [
        {"inputs"},
        {"inputs", "aggregation_strategy"},
        {"query", "documents"},
        {"inputs"},
    ]


def test_wrong_arguments_are_refused_before_a_call(server: FakeServer) -> None:
    """With what is allowed, and not one letter of a text as a text."""
    wrong: Any = "wrong"
    with Client(server.target) as client:
        with pytest.raises(ValueError, match="`function_to_apply` must be one of softmax, sigmo"):
            client.classify("a", function_to_apply=wrong)
        with pytest.raises(ValueError, match="`aggregation_strategy` must be one of none, simple"):
            client.classify_tokens("a", aggregation_strategy=wrong)
        with pytest.raises(ValueError, match="`truncation_direction` must be one of right, left"):
            client.embed("a", truncation_direction=wrong)
        with pytest.raises(ValueError, match="`priority` must be one of low, normal, high"):
            client.fill_mask("a", priority=wrong)
        with pytest.raises(TypeError, match="`documents` must be a list of texts, but is one"):
            client.rerank("q", "documents")
        with pytest.raises(TypeError, match="`batches` must be a list of texts, but is one text"):
            list(client.embed_stream(["ab"]))
    assert not server.requests


async def test_both_clients_return_the_same(server: FakeServer) -> None:
    """Method by method, the awaited result equals the blocking one."""
    with Client(server.target) as client:
        blocking = [
            client.classify(["a", "b"]),
            client.classify_tokens("a"),
            client.rerank("q", ["a", "b"]),
            client.fill_mask("a"),
        ]
    async with AsyncClient(server.target) as other:
        awaited = [
            await other.classify(["a", "b"]),
            await other.classify_tokens("a"),
            await other.rerank("q", ["a", "b"]),
            await other.fill_mask("a"),
        ]
    assert awaited == blocking


def check_stream(results: list[Embeddings | CallError]) -> None:
    """Embeddings, an error, embeddings."""
    first, second, third = results
    assert isinstance(first, Embeddings)
    assert np.array_equal(first.vectors, [[2, 1], [1, 1]])
    assert isinstance(second, CallError)
    assert (second.code, second.message) == ("INVALID_ARGUMENT", "`inputs[0]` must not be empty")
    assert second.fields == {"inputs[0]": "must not be empty"}
    assert isinstance(third, Embeddings)
    assert np.array_equal(third.vectors, [[3, 1]])


BATCHES = [["ab", "c"], [""], ["def"]]


async def test_streams_yield_results_and_errors_in_order(server: FakeServer) -> None:
    """An error is that of its list alone, in both clients, from lists and from generators."""

    async def generate() -> AsyncIterator[list[str]]:
        for batch in BATCHES:
            yield batch

    with Client(server.target) as client:
        check_stream(list(client.embed_stream(iter(BATCHES), model="m", normalize=True)))
    async with AsyncClient(server.target) as other:
        check_stream([one async for one in other.embed_stream(BATCHES)])
        check_stream([one async for one in other.embed_stream(generate())])
    assert (server.requests[0].model_name, server.requests[0].normalize) == ("m", True)


async def test_a_broken_stream_raises(server: FakeServer) -> None:
    """What ended the call, or what ended the batches."""

    def fail() -> Iterator[list[str]]:
        yield ["a"]
        raise RuntimeError("no more texts")

    server.refusals = [Refusal(grpc.StatusCode.NOT_FOUND, "gone") for _ in range(2)]
    with Client(server.target) as client:
        with pytest.raises(CallError, match="NOT_FOUND: gone"):
            list(client.embed_stream([["a"]]))
        async with AsyncClient(server.target) as other:
            with pytest.raises(CallError, match="NOT_FOUND: gone"):
                _ = [one async for one in other.embed_stream([["a"]])]
            with pytest.raises(RuntimeError, match="no more texts"):
                _ = [one async for one in other.embed_stream(fail())]
        with pytest.raises(RuntimeError, match="no more texts"):
            list(client.embed_stream(fail()))


def test_windows_and_token_embeddings_are_arrays() -> None:
    """Of each text; empty where none was asked for."""
    token = model_pb2.Token(id=5, text="a", end_offset=1)
    embedding = encoding_pb2.Embedding(
        values=[1, 2],
        windows=[encoding_pb2.EmbeddingWindow(values=[3, 4], end_offset=7, token_count=9)],
        token_embeddings=[encoding_pb2.TokenEmbedding(token=token, values=[5, 6])],
    )
    whole = to_embeddings(encoding_pb2.EmbedResponse(embeddings=[embedding]))
    ((window,),) = whole.windows
    assert (window.vector.tolist(), window.end_offset, window.token_count) == ([3, 4], 7, 9)
    (tokens,) = whole.token_embeddings
    assert (tokens.tokens[0].text, tokens.vectors.tolist()) == ("a", [[5, 6]])
    bare = to_embeddings(
        encoding_pb2.EmbedResponse(embeddings=[encoding_pb2.Embedding(values=[1])])
    )
    assert (bare.windows, bare.token_embeddings) == ((), ())


def test_models_show_their_heads_and_prompts() -> None:
    """Labels, activation, mask, prompts; None where there is no such head."""
    tasks = [
        model_pb2.Model(
            classification=model_pb2.ClassificationSettings(
                labels=["a", "b"], problem_type=model_pb2.PROBLEM_TYPE_MULTI_LABEL
            )
        ),
        model_pb2.Model(token_classification=model_pb2.TokenClassificationSettings(labels=["O"])),
        model_pb2.Model(
            reranking=model_pb2.RerankingSettings(activation=model_pb2.RERANKING_ACTIVATION_SIGMOID)
        ),
        model_pb2.Model(
            mask_filling=model_pb2.MaskFillingSettings(mask_token="[MASK]", mask_token_id=4)
        ),
        model_pb2.Model(
            embedding=model_pb2.EmbeddingSettings(
                prompts={"query": "q: "}, default_prompt_name="query", token_embedding_size=8
            )
        ),
    ]
    first, second, third, fourth, fifth = to_models(tasks)
    assert first.classification == ClassificationSettings(
        labels=("a", "b"), problem_type="multi_label", has_token_types=False
    )
    assert second.token_classification == TokenClassificationSettings(labels=("O",))
    assert third.reranking == RerankingSettings(activation="sigmoid")
    assert fourth.mask_filling == MaskFillingSettings(mask_token="[MASK]", mask_token_id=4)
    assert (first.reranking, fourth.classification, fifth.mask_filling) == (None, None, None)
    assert fifth.embedding is not None
    assert fifth.embedding.prompts == {"query": "q: "}
    assert (fifth.embedding.default_prompt_name, fifth.embedding.token_embedding_size) == (
        "query",
        8,
    )
