"""Classification over gRPC, against the pipeline of ``transformers``."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import transformers
from transformers import pipeline

from seqserve.task_record import Task
from seqserve.v1 import encoding_pb2
from seqserve_export.exporter import export_model
from serving import MakeServer, RunningServer, status_of
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder

Input = encoding_pb2.ClassifyInput
TEXTS = ["the cat sat on the mat", "rain fell", "models are small here and read short sentences"]
PAIRS = [("the cat sat", "a dog slept"), ("rain fell over the hills", "nobody walked")]


async def classify(running: RunningServer, inputs: list[Input], **fields: Any) -> Any:
    """The results of inputs, by the model that classifies."""
    request = encoding_pb2.ClassifyRequest(**{"model_name": "classify"} | fields, inputs=inputs)
    return (await running.encoding.Classify(request)).results


def check(results: Any, expected: list[list[dict[str, Any]]]) -> None:
    """The same labels in the same order with the same scores."""
    for result, labels in zip(results, expected, strict=True):
        assert [one.label for one in result.labels] == [one["label"] for one in labels]
        np.testing.assert_allclose(
            [one.score for one in result.labels], [one["score"] for one in labels], atol=2e-5
        )


@pytest.mark.parametrize("function", ["", "softmax", "sigmoid", "none"])
async def test_labels_are_those_of_the_pipeline(
    function: str, heads: Path, head_sources: dict[Task, Path], serving: MakeServer
) -> None:
    """Texts and pairs, with the function of the model or another, best label first."""
    reference = pipeline("text-classification", model=str(head_sources[Task.CLASSIFY]))
    options = {"function_to_apply": function} if function else {}
    texts: list[Any] = [*TEXTS, *({"text": first, "text_pair": pair} for first, pair in PAIRS)]
    expected = [reference(text, top_k=None, **options) for text in texts]
    inputs = [*(Input(text=text) for text in TEXTS)]
    inputs += [Input(text=first, text_pair=pair) for first, pair in PAIRS]
    value = encoding_pb2.ScoreFunction.Value(f"SCORE_FUNCTION_{function.upper() or 'UNSPECIFIED'}")
    async with serving(models=heads) as running:
        results = await classify(running, inputs, function_to_apply=value)
    check(results, expected)


@pytest.mark.parametrize(
    ("problem_type", "num_labels"),
    [("multi_label_classification", 3), ("regression", 2), ("single_label_classification", 2)],
)
async def test_function_is_that_of_the_checkpoint(
    problem_type: str, num_labels: int, tmp_path: Path, serving: MakeServer
) -> None:
    """Sigmoid where each label holds or not, logits where they are values."""
    folder = make_tiny_encoder_folder(
        tmp_path / "source",
        find_variant("roberta"),
        Task.CLASSIFY,
        num_labels=num_labels,
        problem_type=problem_type,
    )
    export_model(folder, tmp_path / "store", name="classify")
    reference: Any = pipeline("text-classification", model=str(folder))
    async with serving(models=tmp_path / "store") as running:
        results = await classify(running, [Input(text=text) for text in TEXTS])
    check(results, reference(TEXTS, top_k=None))


async def test_best_labels_with_logits(heads: Path, serving: MakeServer) -> None:
    """``top_k`` keeps the best; logits come on request only."""
    async with serving(models=heads) as running:
        (whole,) = await classify(running, [Input(text=TEXTS[0])], return_logits=True)
        (best,) = await classify(running, [Input(text=TEXTS[0])], top_k=2)
    assert [one.label for one in best.labels] == [one.label for one in whole.labels][:2]
    assert not any(one.HasField("logit") for one in best.labels)
    logits = np.array([one.logit for one in whole.labels])
    powers = np.exp(logits - logits.max())
    np.testing.assert_allclose([one.score for one in whole.labels], powers / powers.sum())
    assert (whole.token_count, whole.truncated_token_count) == (8, 0)
    assert whole.timing.encode_duration.ToNanoseconds() > 0


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    ("first_length", "second_length"),
    [(90, 0), (100, 20), (20, 100), (100, 90), (90, 100), (38, 39), (39, 39), (200, 40), (40, 38)],
)
async def test_long_inputs_are_cut_as_by_the_library(
    side: str,
    first_length: int,
    second_length: int,
    heads: Path,
    head_sources: dict[Task, Path],
    serving: MakeServer,
) -> None:
    """The longer text of a pair first, from the chosen side; the reply counts what was cut."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(head_sources[Task.CLASSIFY])
    tokenizer.truncation_side = side
    texts = [make_text(length, seed) for seed, length in enumerate((first_length, second_length))]
    parts = [text for text in texts if text]
    encoded = tokenizer(*parts, truncation=True, max_length=80)
    seen: list[tuple[int, ...]] = []
    async with serving(models=heads) as running:
        engine = running.registry.find("classify", "", None).lanes.workers[0]._engine
        engine.run = spy(engine.run, seen)  # type: ignore[method-assign]
        (result,) = await classify(
            running,
            [Input(text=texts[0], text_pair=texts[1] or None)],
            truncate=True,
            truncation_direction=f"TRUNCATION_DIRECTION_{side.upper()}",
        )
    assert seen == [tuple(encoded["input_ids"])]
    whole = len(tokenizer(*parts)["input_ids"])
    assert result.token_count + result.truncated_token_count == whole
    assert result.token_count == len(encoded["input_ids"])


def make_text(num_words: int, seed: int) -> str:
    """Words of one token each, in an order of their own."""
    words = np.array(["the", "cat", "dog", "over", "and"])
    return " ".join(np.random.default_rng(seed).choice(words, num_words))


def spy(run: Callable[..., Any], seen: list[tuple[int, ...]]) -> Callable[..., Any]:
    """Keeps the sources of batches."""

    def keep(batch: Any, *options: Any) -> Any:
        seen.extend(sequence.source_tokens for sequence in batch.sequences)
        return run(batch)

    return keep


LONG = make_text(90, 0)
REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({}, "`inputs` must not be empty"),
    ({"inputs": [Input()]}, "`inputs[0].text` must not be empty"),
    (
        {"inputs": [Input(text="a", text_pair="")]},
        "`inputs[0].text_pair` must not be empty",
    ),
    (
        {"inputs": [Input(text="a")], "top_k": 4},
        "`top_k` must be at least 1 and at most 3, the number of labels, but is 4",
    ),
    (
        {"inputs": [Input(text="a")], "function_to_apply": 9},
        "`function_to_apply` must be one of 0 (SCORE_FUNCTION_UNSPECIFIED), 1 "
        "(SCORE_FUNCTION_SOFTMAX), 2 (SCORE_FUNCTION_SIGMOID), 3 (SCORE_FUNCTION_NONE), but is 9",
    ),
    (
        {"inputs": [Input(text="a"), Input(text=LONG)]},
        "`inputs[1].text` must have at most 80 tokens, but has 92; shorten it, or set `truncate` "
        "to have its end cut",
    ),
    (
        {"inputs": [Input(text=LONG, text_pair="the cat")]},
        "`inputs[0]` must have at most 80 tokens in both texts, but has 95; shorten it, or set "
        "`truncate` to have its end cut",
    ),
    (
        {"inputs": [Input(text="a")], "truncation_direction": 2},
        "`truncation_direction` has an effect with `truncate` only; set `truncate`, or leave it "
        "out",
    ),
    (
        {"inputs": [Input(text="a")], "truncation_direction": 7, "truncate": True},
        "`truncation_direction` must be one of 0 (TRUNCATION_DIRECTION_UNSPECIFIED), 1 "
        "(TRUNCATION_DIRECTION_RIGHT), 2 (TRUNCATION_DIRECTION_LEFT), but is 7",
    ),
    (
        {"inputs": [Input(text="a")], "priority": 9},
        "`priority` must be one of 0 (PRIORITY_UNSPECIFIED), 1 (PRIORITY_LOW), 2 "
        "(PRIORITY_NORMAL), 3 (PRIORITY_HIGH), but is 9",
    ),
]


async def test_invalid_requests_name_field_rule_and_value(heads: Path, serving: MakeServer) -> None:
    """INVALID_ARGUMENT with what is wrong, and the places are free again."""
    async with serving(models=heads) as running:
        for fields, message in REFUSALS:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await classify(running, **({"inputs": []} | fields))
            assert status_of(caught.value) == f"INVALID_ARGUMENT: {message}"
        assert running.num_outstanding == 0


async def test_pairs_need_room_for_their_special_tokens(
    heads: Path, tmp_path: Path, serving: MakeServer
) -> None:
    """A manifest may leave no room for a pair."""
    copy = tmp_path / "store"
    shutil.copytree(heads / "classify", copy / "classify")
    path = copy / "classify" / "1" / "seqserve.json"
    manifest = path.read_text(encoding="utf-8").replace(
        '"max_source_length": 80', '"max_source_length": 2'
    )
    path.write_text(manifest, encoding="utf-8")
    async with serving(models=copy) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await classify(running, [Input(text="a", text_pair="b")], truncate=True)
    assert status_of(caught.value) == (
        "INVALID_ARGUMENT: no pair of texts fits into 2 tokens: 3 special tokens are added to "
        "every pair of texts; use another model, or token ids if the method takes them"
    )
