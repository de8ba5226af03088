"""Answers to Triton's client have the bits of those to other calls."""

from pathlib import Path
from typing import Any

from seqserve.v1 import encoding_pb2, generation_pb2
from serving import MakeServer
from triton_calls import Kind, call, infer, texts
from triton_kind import SENTENCES, TEXTS, each_kind, to_float32


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
