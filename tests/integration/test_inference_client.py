"""The Open Inference Protocol, called with Triton's own client."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.sequence import Sequence
from seqserve.v1 import encoding_pb2, generation_pb2
from serving import MakeServer
from triton_calls import Kind, call, infer, texts, work

TEXTS = ["a b c", "c b", "d e f g h a b"]
SENTENCES = ["the cat sat on the mat", "a dog slept under the old table"]

each_kind = pytest.mark.parametrize("kind", ["sync", "aio"])


def to_float32(values: Any) -> Any:
    """Scores as tensors hold them."""
    return np.array(values, np.float32).tolist()


@each_kind
async def test_server_and_models_describe_themselves(kind: Kind, serving: MakeServer) -> None:
    """Liveness, readiness, metadata, index and statistics are what the client expects."""
    async with serving() as running:
        (
            live,
            ready,
            model,
            absent,
            metadata,
            tensors,
            index,
            loading,
            unloading,
            config,
        ) = await call(
            running,
            kind,
            {"method": "is_server_live"},
            {"method": "is_server_ready"},
            {"method": "is_model_ready", "model_name": "tiny"},
            {"method": "is_model_ready", "model_name": "nope"},
            {"method": "get_server_metadata", "as_json": True},
            {"method": "get_model_metadata", "model_name": "sentence", "as_json": True},
            {"method": "get_model_repository_index", "as_json": True},
            {"method": "load_model", "model_name": "tiny"},
            {"method": "unload_model", "model_name": "tiny"},
            {"method": "get_model_config", "model_name": "tiny"},
        )
    assert (live, ready, model, absent) == (True, True, True, False)
    assert metadata["name"] == "seqserve"
    assert metadata["extensions"] == [
        *("model_repository", "parameters", "schedule_policy", "statistics"),
    ]
    assert (tensors["platform"], tensors["versions"]) == ("seqserve_embed", ["1"])
    shapes = {one["name"]: (one["datatype"], one["shape"]) for one in tensors["inputs"]}
    assert shapes["text"] == ("BYTES", ["-1"])
    assert shapes["input_ids"] == ("INT64", ["-1", "-1"])
    shapes = {one["name"]: (one["datatype"], one["shape"]) for one in tensors["outputs"]}
    assert shapes["embedding"] == shapes["sentence_embedding"] == ("FP32", ["-1", "32"])
    assert shapes["last_hidden_state"] == ("FP32", ["-1", "-1", "32"])
    assert index["models"] == [
        {"name": name, "version": "1", "state": "READY"} for name in ("long", "sentence", "tiny")
    ]
    for result in (loading, unloading):
        assert result == {
            "error": "calls may not load and unload models here (allow_model_control is off)",
            "status": "StatusCode.PERMISSION_DENIED",
        }
    assert config["status"] == "StatusCode.UNIMPLEMENTED"


@each_kind
async def test_models_come_and_go(kind: Kind, serving: MakeServer) -> None:
    """An unloaded model is gone from the index and cannot be called, until it is loaded again."""
    index: dict[str, Any] = {"method": "get_model_repository_index", "as_json": True}
    unload: dict[str, Any] = {"method": "unload_model", "model_name": "tiny"}
    load: dict[str, Any] = {"method": "load_model", "model_name": "tiny"}
    async with serving(allow_model_control=True) as running:
        unloaded, without, refused, loaded, again, served, missing = await call(
            running,
            kind,
            *(unload, index, infer("tiny", texts("a")), load, load, index),
            {"method": "load_model", "model_name": "other"},
        )
    assert "error" not in (unloaded or {})
    assert [one["name"] for one in without["models"]] == ["long", "sentence"]
    assert refused["status"] == "StatusCode.NOT_FOUND"
    assert "error" not in (loaded or {})
    assert "error" not in (again or {})
    assert [one["name"] for one in served["models"]] == ["long", "sentence", "tiny"]
    assert missing == {
        "error": "the store has no model 'other'; it has: long, sentence, tiny",
        "status": "StatusCode.NOT_FOUND",
    }


@each_kind
async def test_generation_is_that_of_generate(kind: Kind, serving: MakeServer) -> None:
    """Texts, scores, counts and reasons of greedy search and beams have the same bits."""
    options: dict[str, Any] = {"max_new_tokens": 20, "num_beams": 4, "num_return_sequences": 2}
    async with serving() as running:
        greedy, beams, tokens = await call(
            running,
            kind,
            infer("tiny", texts(*TEXTS), request_id="7"),
            infer("tiny", texts(*TEXTS), parameters={**options, "length_penalty": 0.5}),
            infer(
                "tiny",
                ("input_ids", "INT64", [[4, 5, 1], [6, 1, 0]]),
                ("source_lengths", "INT64", [3, 2]),
                outputs=["token_ids", "score", "token_log_probabilities"],
                model_version="1",
            ),
        )
        inputs = [generation_pb2.GenerateInput(text=text) for text in TEXTS]
        expected = await running.generation.Generate(
            generation_pb2.GenerateRequest(model_name="tiny", inputs=inputs)
        )
        best = await running.generation.Generate(
            generation_pb2.GenerateRequest(
                model_name="tiny",
                inputs=inputs,
                options=generation_pb2.GenerateOptions(**options, length_penalty=0.5),
            )
        )
        scored = await running.generation.Generate(
            generation_pb2.GenerateRequest(
                model_name="tiny",
                inputs=[
                    generation_pb2.GenerateInput(token_ids=generation_pb2.TokenIds(values=values))
                    for values in ([4, 5, 1], [6, 1])
                ],
                options=generation_pb2.GenerateOptions(
                    return_scores=True, return_token_log_probabilities=True
                ),
            )
        )
    assert (greedy["id"], greedy["model"]) == ("7", "tiny/1")
    first = [result.hypotheses[0] for result in expected.results]
    assert greedy["outputs"]["text"] == [one.text for one in first]
    assert greedy["outputs"]["token_count"] == [len(one.token_ids) for one in first]
    assert set(greedy["outputs"]["finish_reason"]) <= {"eos", "length"}
    assert greedy["outputs"]["source_token_count"] == [4, 3, 8]
    assert "score" not in greedy["outputs"]
    assert beams["outputs"]["text"] == [
        [one.text for one in result.hypotheses] for result in best.results
    ]
    assert beams["outputs"]["score"] == to_float32(
        [[one.score for one in result.hypotheses] for result in best.results]
    )
    assert beams["outputs"]["hypothesis_count"] == [2, 2, 2]
    assert list(tokens["outputs"]) == ["token_ids", "score", "token_log_probabilities"]
    for row, result in enumerate(scored.results):
        (one,) = result.hypotheses
        length = len(one.token_ids)
        assert tokens["outputs"]["token_ids"][row][:length] == list(one.token_ids)
        assert not any(tokens["outputs"]["token_ids"][row][length:])
        assert tokens["outputs"]["score"][row] == to_float32(one.score)
        assert tokens["outputs"]["token_log_probabilities"][row][:length] == list(
            one.token_log_probabilities
        )


@each_kind
async def test_embeddings_are_those_of_embed(kind: Kind, serving: MakeServer) -> None:
    """Of texts and of token ids, which are what the tokenizer makes of the texts."""
    async with serving() as running:
        expected = await running.encoding.Embed(
            encoding_pb2.EmbedRequest(
                model_name="sentence", inputs=["a b", "cat"], return_token_embeddings=True
            )
        )
        rows = [[one.token.id for one in text.token_embeddings] for text in expected.embeddings]
        width = max(map(len, rows))
        padded = [row + [0] * (width - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        plain, states, raw, short = await call(
            running,
            kind,
            infer("sentence", texts("a b", "cat")),
            infer("sentence", texts("a b", "cat"), outputs=["last_hidden_state"]),
            infer(
                "sentence",
                ("input_ids", "INT64", padded),
                ("attention_mask", "INT64", mask),
                outputs=["last_hidden_state", "sentence_embedding"],
            ),
            infer("sentence", texts("a b"), parameters={"dimensions": 8, "normalize": False}),
        )
        cut = await running.encoding.Embed(
            encoding_pb2.EmbedRequest(
                model_name="sentence", inputs=["a b"], dimensions=8, normalize=False
            )
        )
    vectors = [list(one.values) for one in expected.embeddings]
    assert plain["outputs"]["embedding"] == vectors
    assert plain["outputs"]["token_count"] == [4, 3]
    assert raw["outputs"]["sentence_embedding"] == vectors
    assert raw["outputs"]["last_hidden_state"] == states["outputs"]["last_hidden_state"]
    for row, text in enumerate(expected.embeddings):
        kept = states["outputs"]["last_hidden_state"][row][: len(text.token_embeddings)]
        assert kept == [list(one.values) for one in text.token_embeddings]
    assert short["outputs"]["embedding"] == [list(cut.embeddings[0].values)]


@each_kind
async def test_heads_answer_as_their_own_calls(
    kind: Kind, heads: Path, serving: MakeServer
) -> None:
    """Labels, entities, ranks and tokens for masks, with the same scores."""
    masked = "the [MASK] sat on the [MASK]"
    async with serving(models=heads) as running:
        labels, pairs, entities, ranks, masks = await call(
            running,
            kind,
            infer("classify", texts(*SENTENCES), parameters={"top_k": 2, "return_logits": True}),
            infer(
                "classify",
                texts(*SENTENCES),
                texts("a cat", "no dog", name="text_pair"),
                parameters={"function_to_apply": "sigmoid"},
            ),
            infer(
                "classify_tokens",
                texts(*SENTENCES),
                parameters={"aggregation_strategy": "first", "ignore_labels": "[]"},
            ),
            infer(
                "rerank",
                texts(SENTENCES[0], name="query"),
                texts(*SENTENCES, "cats", name="documents"),
                parameters={"top_n": 2, "return_documents": True},
            ),
            infer(
                "fill_mask",
                texts(masked, "a [MASK] slept"),
                parameters={"top_k": 3, "return_sequences": True},
            ),
        )
        encoding = running.encoding
        inputs = [encoding_pb2.ClassifyInput(text=text) for text in SENTENCES]
        expected_labels = await encoding.Classify(
            encoding_pb2.ClassifyRequest(inputs=inputs, top_k=2, return_logits=True)
        )
        inputs[0].text_pair, inputs[1].text_pair = "a cat", "no dog"
        expected_pairs = await encoding.Classify(
            encoding_pb2.ClassifyRequest(
                inputs=inputs, function_to_apply=encoding_pb2.SCORE_FUNCTION_SIGMOID
            )
        )
        expected_entities = await encoding.ClassifyTokens(
            encoding_pb2.ClassifyTokensRequest(
                inputs=SENTENCES,
                aggregation_strategy=encoding_pb2.AGGREGATION_STRATEGY_FIRST,
                ignore_labels=encoding_pb2.LabelList(),
            )
        )
        expected_ranks = await encoding.Rerank(
            encoding_pb2.RerankRequest(
                query=SENTENCES[0], documents=[*SENTENCES, "cats"], top_n=2, return_documents=True
            )
        )
        expected_masks = await encoding.FillMask(
            encoding_pb2.FillMaskRequest(
                inputs=[masked, "a [MASK] slept"], top_k=3, return_sequences=True
            )
        )
    for outputs, expected in ((labels, expected_labels), (pairs, expected_pairs)):
        assert outputs["outputs"]["label"] == [
            [one.label for one in result.labels] for result in expected.results
        ]
        assert outputs["outputs"]["score"] == to_float32(
            [[one.score for one in result.labels] for result in expected.results]
        )
    assert labels["outputs"]["logit"] == to_float32(
        [[one.logit for one in result.labels] for result in expected_labels.results]
    )
    for row, result in enumerate(expected_entities.results):
        count = entities["outputs"]["entity_count"][row]
        assert count == len(result.entities)
        for name in ("label", "word", "start_offset", "end_byte_offset"):
            values = entities["outputs"][name][row][:count]
            assert values == [getattr(one, name) for one in result.entities]
    assert "token_index" not in entities["outputs"]
    for name in ("index", "document", "token_count"):
        assert ranks["outputs"][name] == [getattr(one, name) for one in expected_ranks.results]
    assert masks["outputs"]["mask_count"] == [2, 1]
    for row, filling in enumerate(expected_masks.results):
        for place, mask in enumerate(filling.masks):
            assert masks["outputs"]["token_index"][row][place] == mask.token_index
            for name, field in (("token", "text"), ("token_id", "id"), ("sequence", "sequence")):
                values = masks["outputs"][name][row][place]
                assert values == [getattr(one, field) for one in mask.tokens]
            assert masks["outputs"]["score"][row][place] == to_float32(
                [one.score for one in mask.tokens]
            )


@each_kind
async def test_streams_send_pieces_and_go_on_after_errors(kind: Kind, serving: MakeServer) -> None:
    """Pieces joined are the text; the last says so; an error is that of its request alone."""
    requests = [
        {"model_name": "tiny", "request_id": "1", "inputs": [texts("a b c")]},
        {"model_name": "tiny", "request_id": "2", "inputs": [texts("")]},
        {"model_name": "sentence", "request_id": "3", "inputs": [texts("a", "b")]},
        {"model_name": "nope", "request_id": "4", "inputs": [texts("a")]},
        {
            "model_name": "tiny",
            "request_id": "5",
            "inputs": [texts("c b")],
            "parameters": {"num_beams": 3, "max_new_tokens": 12},
        },
    ]
    async with serving() as running:
        (responses,) = await call(running, kind, {"method": "stream", "requests": requests})
        parts: list[tuple[str, dict[str, Any]]] = [
            ("a b c", {}),
            ("c b", {"num_beams": 3, "max_new_tokens": 12}),
        ]
        expected = [
            await running.generation.Generate(
                generation_pb2.GenerateRequest(
                    model_name="tiny",
                    inputs=[generation_pb2.GenerateInput(text=text)],
                    options=generation_pb2.GenerateOptions(**options),
                )
            )
            for text, options in parts
        ]
        assert running.num_outstanding == 0
    for request_id, reply in (("1", expected[0]), ("5", expected[1])):
        own = [one for one in responses if one.get("id") == request_id]
        best = reply.results[0].hypotheses[0]
        assert "".join(one["outputs"]["text"][0] for one in own) == best.text
        final = [one["parameters"]["triton_final_response"] for one in own]
        assert final == [False] * (len(own) - 1) + [True]
        assert own[-1]["outputs"]["token_count"] == [len(best.token_ids)]
        assert own[-1]["outputs"]["finish_reason"] == [
            generation_pb2.FinishReason.Name(best.finish_reason).split("_")[-1].lower()
        ]
    assert sum(one.get("id") == "1" for one in responses) > 2
    (embedded,) = [one for one in responses if one.get("id") == "3"]
    assert len(embedded["outputs"]["embedding"]) == 2
    assert embedded["parameters"] == {}
    errors = [one["error"] for one in responses if "error" in one]
    assert sorted(errors) == [
        "`text` must not be empty",
        "there is no model 'nope'; there are: long, sentence, tiny",
    ]


@each_kind
async def test_errors_have_codes_and_names_of_the_tensors(kind: Kind, serving: MakeServer) -> None:
    """As Triton's client shows them."""
    cases: list[tuple[dict[str, Any], str, str]] = [
        (
            infer("tiny", texts("a"), parameters={"num_beams": 0}),
            "INVALID_ARGUMENT",
            "`num_beams` must be at least 1, but is 0",
        ),
        (
            infer("tiny", texts("a"), parameters={"num_beams": "4"}),
            "INVALID_ARGUMENT",
            "`num_beams` must be an integer, but is '4'",
        ),
        (
            infer("sentence", texts("a"), parameters={"beams": 1}),
            "INVALID_ARGUMENT",
            "`beams` is no parameter for these inputs; there are: dimensions, max_active_dims, "
            "normalize, priority, "
            "prompt_name, return_token_embeddings, return_windows, stride, timeout, truncate, "
            "truncation_direction",
        ),
        (
            infer("sentence", texts("a", name="txt")),
            "INVALID_ARGUMENT",
            "`txt` is no input of this model; it takes text; or input_ids [attention_mask] "
            "[source_lengths] [token_type_ids]",
        ),
        (infer("nope", texts("a")), "NOT_FOUND", "there is no model 'nope'; there are: "),
        (
            infer("tiny", texts("a"), sequence_id=3),
            "INVALID_ARGUMENT",
            "`sequence_id` is not supported: models keep nothing from one request to the next; "
            "leave it out",
        ),
        (
            infer("tiny", texts("a"), outputs=["words"]),
            "INVALID_ARGUMENT",
            "`words` is no output for these inputs; there are: text, score, token_count, ",
        ),
        (
            infer("tiny", texts("a"), outputs=["seed"]),
            "INVALID_ARGUMENT",
            "the output `seed` is there with `do_sample` only",
        ),
    ]
    async with serving() as running:
        results = await call(running, kind, *(request for request, _, _ in cases))
    for result, (_, code, message) in zip(results, cases, strict=True):
        assert result["status"] == f"StatusCode.{code}"
        assert result["error"].startswith(message)


@each_kind
async def test_priority_and_timeout_reach_the_scheduler(
    kind: Kind, serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 is high and 3 low; a time-out in microseconds is a deadline of the request."""
    seen: list[tuple[str, bool]] = []
    async with serving() as running:
        lanes = running.registry.find("tiny", "", None).lanes
        submit = lanes.submit

        def note(sequences: list[Sequence]) -> None:
            seen.extend((one.priority.name, one.server_limit_seconds is None) for one in sequences)
            submit(sequences)

        monkeypatch.setattr(lanes, "submit", note)
        ready = [
            infer("tiny", texts("a b"), priority=number, timeout=30_000_000)
            for number in (0, 1, 2, 3)
        ]
        *results, unlimited, late, unknown = await call(
            running,
            kind,
            *ready,
            infer("tiny", texts("a b"), timeout=0),
            infer("tiny", texts(*["a b c"] * 40), timeout=1),
            infer("tiny", texts("a b"), priority=9),
        )
    assert all("outputs" in result for result in (*results, unlimited))
    assert [name for name, _ in seen[:4]] == ["NORMAL", "HIGH", "NORMAL", "LOW"]
    assert [is_own for _, is_own in seen[:5]] == [True] * 4 + [False]
    assert late["status"] == "StatusCode.DEADLINE_EXCEEDED"
    assert late["error"] == (
        "the deadline passed before the work was done; allow more time, or ask for less"
    )
    assert unknown["error"] == (
        "`priority` must be 1 (high), 2 (normal), 3 (low) or 0 (the default, normal), but is 9"
    )


@each_kind
async def test_statistics_count_what_was_done(kind: Kind, serving: MakeServer) -> None:
    """Inputs, passes and nanoseconds, by model."""
    async with serving() as running:
        _, one, every = await call(
            running,
            kind,
            infer("sentence", texts("a", "b", "c")),
            {
                "method": "get_inference_statistics",
                "model_name": "sentence",
                "as_json": True,
            },
            {"method": "get_inference_statistics", "as_json": True},
        )
    (statistics,) = one["model_stats"]
    assert (statistics["name"], statistics["version"]) == ("sentence", "1")
    assert int(statistics["inference_count"]) == 3
    assert 1 <= int(statistics["execution_count"]) <= 3
    assert int(statistics["inference_stats"]["queue"]["count"]) == 3
    assert int(statistics["inference_stats"]["compute_infer"]["ns"]) > 0
    assert [other["name"] for other in every["model_stats"]] == ["long", "sentence", "tiny"]


async def test_messages_are_those_of_the_client() -> None:
    """Every field has its number and type, every RPC its messages."""
    theirs = await work({"kind": "messages"})
    found = list(open_inference_pb2.DESCRIPTOR.message_types_by_name.values())
    for message in found:
        found += message.nested_types
        assert theirs["fields"][message.full_name] == {
            one.name: [one.number, one.type, one.is_repeated] for one in message.fields
        }
    (service,) = open_inference_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods:
        names = [method.input_type.full_name, method.output_type.full_name]
        assert theirs["methods"][method.name] == names
