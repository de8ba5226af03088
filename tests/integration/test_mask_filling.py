"""Mask filling over gRPC, against the pipeline of ``transformers``."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from transformers import pipeline

from seqserve.task_record import Task
from seqserve.v1 import encoding_pb2
from serving import MakeServer, RunningServer, status_of
from tiny_encoder_folder import VOCABULARY_SIZE

TEXTS = ["the [MASK] sat on the mat", "a [MASK] slept under the [MASK] table", "[MASK]"]


async def fill(running: RunningServer, texts: list[str], **fields: Any) -> Any:
    """The results of texts, by the model that fills masks."""
    request = encoding_pb2.FillMaskRequest(**{"model_name": "fill_mask"} | fields, inputs=texts)
    return (await running.encoding.FillMask(request)).results


@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 3}, {"targets": ["the", "dog", "a", "the"]}, {"targets": ["a"], "top_k": 1}],
)
async def test_tokens_are_those_of_the_pipeline(
    options: dict[str, Any], heads: Path, head_sources: dict[Task, Path], serving: MakeServer
) -> None:
    """Ids, texts, probabilities and sequences of each mask, of all tokens or of targets."""
    reference = pipeline("fill-mask", model=str(head_sources[Task.FILL_MASK]))
    async with serving(models=heads) as running:
        results = await fill(running, TEXTS, return_sequences=True, **options)
    for result, text in zip(results, TEXTS, strict=True):
        expected = reference(text, **options)
        masks = expected if isinstance(expected[0], list) else [expected]
        assert len(result.masks) == len(masks)
        for mask, tokens in zip(result.masks, masks, strict=True):
            found = [(one.id, one.text, one.sequence) for one in mask.tokens]
            assert found == [(one["token"], one["token_str"], one["sequence"]) for one in tokens]
            np.testing.assert_allclose(
                [one.score for one in mask.tokens], [one["score"] for one in tokens], atol=2e-5
            )
    assert [mask.token_index for mask in results[1].masks] == [2, 9]


async def test_sequences_come_on_request(heads: Path, serving: MakeServer) -> None:
    """Without, tokens alone; all of the vocabulary may be asked for."""
    async with serving(models=heads) as running:
        (result,) = await fill(running, TEXTS[:1], top_k=VOCABULARY_SIZE)
    (mask,) = result.masks
    assert {one.sequence for one in mask.tokens} == {""}
    assert sorted(one.id for one in mask.tokens) == list(range(VOCABULARY_SIZE))
    assert sum(one.score for one in mask.tokens) == pytest.approx(1.0)
    assert (result.token_count, result.truncated_token_count) == (8, 0)


async def test_cut_texts_keep_their_masks(heads: Path, serving: MakeServer) -> None:
    """From the side that is asked for."""
    text = "the " * 90 + "[MASK]"
    async with serving(models=heads) as running:
        (result,) = await fill(running, [text], truncate=True, truncation_direction=2)
    assert (result.token_count, result.truncated_token_count) == (80, 13)
    assert [mask.token_index for mask in result.masks] == [78]


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"inputs": []}, "`inputs` must not be empty"),
    (
        {"inputs": ["[MASK]", "the cat"]},
        "`inputs[1]` must hold the mask token [MASK] at least once, but there is none",
    ),
    (
        {"inputs": ["the " * 90 + "[MASK]"], "truncate": True},
        "`inputs[0]` must hold the mask token [MASK] at least once, but there is none in what was "
        "left of it",
    ),
    (
        {"targets": ["the", "tables"]},
        "`targets[1]` must be an entry of the vocabulary, but 'tables' is none; the tokenizer "
        "makes {pieces} of it",
    ),
    ({"targets": [""]}, "`targets[0]` must not be empty"),
    (
        {"top_k": VOCABULARY_SIZE + 1},
        f"`top_k` must be at least 1 and at most {VOCABULARY_SIZE}, the size of the vocabulary, "
        f"but is {VOCABULARY_SIZE + 1}",
    ),
    (
        {"top_k": 3, "targets": ["the", "a", "a"]},
        "`top_k` must be at least 1 and at most 2, the number of different targets, but is 3",
    ),
    ({"top_k": 0}, f"`top_k` must be at least 1 and at most {VOCABULARY_SIZE}"),
    (
        {"inputs": ["[MASK] [MASK]"] * 6},
        "`inputs` must hold at most 8 masks in all (max_inputs_per_request), but hold 12; send "
        "fewer texts, or texts with fewer masks",
    ),
    (
        {"inputs": ["[MASK] [MASK]"] * 4, "top_k": 10},
        "`top_k` of 10 for 8 masks makes a reply of about 3200 bytes, but a message may have 3000 "
        "(max_message_bytes); lower `top_k`, send fewer masks, or leave `return_sequences` out",
    ),
    (
        {"inputs": ["[MASK] " + "a " * 70], "top_k": 20, "return_sequences": True},
        "`top_k` of 20 for 1 masks makes a reply of about 3740 bytes",
    ),
]


async def test_invalid_requests_name_field_rule_and_value(heads: Path, serving: MakeServer) -> None:
    """INVALID_ARGUMENT with what is wrong, and the places are free again."""
    limits = {"max_inputs_per_request": 8, "max_message_bytes": 3000}
    async with serving(models=heads, **limits) as running:
        tokenizer = running.registry.find("fill_mask", "", None).source_tokenizer
        pieces = " ".join(tokenizer.entry(token) for token in tokenizer.encode_plain("tables"))
        for fields, message in REFUSALS:
            values = dict(fields)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await fill(running, values.pop("inputs", TEXTS), **values)
            expected = f"INVALID_ARGUMENT: {message.format(pieces=pieces)}"
            assert status_of(caught.value).startswith(expected)
        assert running.num_outstanding == 0
