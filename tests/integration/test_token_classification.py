"""Token classification over gRPC, against the pipeline of ``transformers``."""

import warnings
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import pipeline

from seqserve.task_record import Task
from seqserve.v1 import encoding_pb2
from seqserve_export.exporter import export_model
from serving import TOKEN_LABELS, MakeServer, RunningServer, status_of
from tiny_encoder_folder import (
    SPECIAL_TOKENS,
    TEXT,
    VOCABULARY_SIZE,
    find_variant,
    make_tiny_encoder_folder,
)

STRATEGIES = ("none", "simple", "first", "average", "max")
TEXTS = [
    "the cat sat on the mat while a dog slept",
    "Émile sat, über the hills; 北京 walked 😀 along the river",
    "small models",
    "the",
]
MAX_LENGTH = 80


async def tag(running: RunningServer, texts: list[str], **fields: Any) -> Any:
    """The results of texts, by the model that classifies tokens."""
    request = encoding_pb2.ClassifyTokensRequest(
        **{"model_name": "classify_tokens"} | fields, inputs=texts
    )
    return (await running.encoding.ClassifyTokens(request)).results


def make_reference(folder: Path, **options: Any) -> Any:
    """The pipeline over a folder, which warns of tokenizers that do not mark subwords."""
    reference: Any = pipeline("token-classification", model=str(folder), **options)
    reference.tokenizer.model_max_length = MAX_LENGTH

    def run(text: str) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Tokenizer does not support real words")
            return reference(text)

    return run


def check(result: Any, expected: list[dict[str, Any]], text: str) -> None:
    """The same entities at the same places with the same scores."""
    found = [(one.label, one.word, one.start_offset, one.end_offset) for one in result.entities]
    assert found == [
        (one.get("entity", one.get("entity_group")), one["word"], one["start"], one["end"])
        for one in expected
    ]
    scores = [float(one["score"]) for one in expected]
    np.testing.assert_allclose([one.score for one in result.entities], scores, atol=2e-5)
    data = text.encode()
    for one in result.entities:
        part = data[one.start_byte_offset : one.end_byte_offset].decode()
        assert part == text[one.start_offset : one.end_offset]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_entities_are_those_of_the_pipeline(
    strategy: str, heads: Path, head_sources: dict[Task, Path], serving: MakeServer
) -> None:
    """Labels, words, places and scores, whatever joins tokens; "O" is left out."""
    run = make_reference(head_sources[Task.CLASSIFY_TOKENS], aggregation_strategy=strategy)
    async with serving(models=heads) as running:
        results = await tag(
            running, TEXTS, aggregation_strategy=f"AGGREGATION_STRATEGY_{strategy.upper()}"
        )
    for result, text in zip(results, TEXTS, strict=True):
        expected = run(text)
        check(result, expected, text)
        if strategy == "none":
            assert [one.token_index for one in result.entities] == [
                one["index"] for one in expected
            ]
    assert sum(len(result.entities) for result in results) > 10
    assert {result.window_count for result in results} == {1}


@pytest.mark.parametrize("strategy", ["simple", "average"])
@pytest.mark.parametrize("kind", ["byte-level", "pieces"])
async def test_words_of_other_tokenizers(
    kind: str, strategy: str, tmp_path: Path, serving: MakeServer
) -> None:
    """Tokens that begin with a space, and word pieces that are marked and decoded."""
    folder = make_tiny_encoder_folder(
        tmp_path / "source",
        find_variant("roberta"),
        Task.CLASSIFY_TOKENS,
        id2label=dict(enumerate(TOKEN_LABELS)),
    )
    make_tokenizer(kind).save(str(folder / "tokenizer.json"))
    export_model(folder, tmp_path / "store", name="classify_tokens")
    run = make_reference(folder, aggregation_strategy=strategy)
    async with serving(models=tmp_path / "store") as running:
        results = await tag(
            running, TEXTS, aggregation_strategy=f"AGGREGATION_STRATEGY_{strategy.upper()}"
        )
    for result, text in zip(results, TEXTS, strict=True):
        check(result, run(text), text)


def make_tokenizer(kind: str) -> Tokenizer:
    """One of RoBERTa's kind, or of BERT's with its decoder."""
    specials = list(SPECIAL_TOKENS)
    if kind == "pieces":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=VOCABULARY_SIZE, special_tokens=specials, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY_SIZE, special_tokens=specials, show_progress=False
        )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("[SEP]", 3), ("[CLS]", 2), trim_offsets=True, add_prefix_space=True
    )
    return tokenizer


@pytest.mark.parametrize("stride", [0, 5, 40])
@pytest.mark.parametrize("strategy", ["simple", "first", "max"])
async def test_windows_are_those_of_the_pipeline(
    strategy: str,
    stride: int,
    heads: Path,
    head_sources: dict[Task, Path],
    serving: MakeServer,
) -> None:
    """Long texts are read in overlapping parts; of overlapping entities the longest is kept."""
    run = make_reference(
        head_sources[Task.CLASSIFY_TOKENS], aggregation_strategy=strategy, stride=stride
    )
    words = np.random.default_rng(2).choice(" ".join(TEXT).split(), 120)
    texts = [" ".join(words), " ".join(words[:5])]
    async with serving(models=heads) as running:
        results = await tag(
            running,
            texts,
            aggregation_strategy=f"AGGREGATION_STRATEGY_{strategy.upper()}",
            stride=stride,
        )
    for result, text in zip(results, texts, strict=True):
        check(result, run(text), text)
    assert results[0].window_count > 1
    assert results[1].window_count == 1
    assert results[0].truncated_token_count == 0


async def test_labels_to_leave_out_can_be_chosen(heads: Path, serving: MakeServer) -> None:
    """None at all, or others than "O"; with a strategy by what is returned."""
    simple = encoding_pb2.AGGREGATION_STRATEGY_SIMPLE
    async with serving(models=heads) as running:
        (everything,) = await tag(running, TEXTS[:1], ignore_labels=encoding_pb2.LabelList())
        (grouped,) = await tag(
            running,
            TEXTS[:1],
            ignore_labels=encoding_pb2.LabelList(labels=["O", "PER"]),
            aggregation_strategy=simple,
        )
    assert len(everything.entities) == everything.token_count - 2
    assert {one.label for one in grouped.entities} <= {"LOC"}


async def test_cut_texts_say_so(heads: Path, serving: MakeServer) -> None:
    """The end or the beginning; offsets stay those of the whole text."""
    text = "the " * 100
    async with serving(models=heads) as running:
        everything = encoding_pb2.LabelList()
        (right,) = await tag(running, [text], truncate=True, ignore_labels=everything)
        (left,) = await tag(
            running, [text], truncate=True, truncation_direction=2, ignore_labels=everything
        )
    for result in (right, left):
        assert (result.token_count, result.truncated_token_count) == (80, 22)
    assert right.entities[0].start_offset == 0
    assert left.entities[-1].end_offset == 399


SIMPLE = {"aggregation_strategy": encoding_pb2.AGGREGATION_STRATEGY_SIMPLE}
REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"inputs": []}, "`inputs` must not be empty"),
    (
        {"aggregation_strategy": 9},
        "`aggregation_strategy` must be one of 0 (AGGREGATION_STRATEGY_UNSPECIFIED), 1 "
        "(AGGREGATION_STRATEGY_NONE), 2 (AGGREGATION_STRATEGY_SIMPLE), 3 "
        "(AGGREGATION_STRATEGY_FIRST), 4 (AGGREGATION_STRATEGY_AVERAGE), 5 "
        "(AGGREGATION_STRATEGY_MAX), but is 9",
    ),
    (
        {"ignore_labels": encoding_pb2.LabelList(labels=["O", "PER"])},
        "`ignore_labels.labels[1]` must be one of the labels that are returned, but is 'PER'; "
        "they are: O, B-PER, I-PER, I-LOC",
    ),
    (
        SIMPLE | {"ignore_labels": encoding_pb2.LabelList(labels=["B-PER"])},
        "`ignore_labels.labels[0]` must be one of the labels that are returned, but is 'B-PER'; "
        "they are: O, PER, LOC",
    ),
    (
        {"stride": 5},
        "`stride` needs an `aggregation_strategy`: without, the tokens that windows have in "
        "common would come twice; set one, or leave `stride` out",
    ),
    (
        SIMPLE | {"stride": 78},
        "`stride` must be at least 0 and below 78, the tokens of a text that a window has room "
        "for, but is 78",
    ),
    (
        SIMPLE | {"stride": 5, "truncate": True},
        "`stride` has no effect with `truncate`, which leaves nothing for a second window; leave "
        "one of them out",
    ),
    (
        SIMPLE | {"stride": 77, "inputs": ["the " * 80, "the " * 400]},
        "the texts up to `inputs[1]` take 326 windows, but a request may have at most 12; lower "
        "`stride`, or send fewer or shorter texts",
    ),
    (
        {"inputs": ["the " * 100]},
        "`inputs[0]` must have at most 80 tokens, but has 102; shorten it, or set `truncate` to "
        "have its end cut",
    ),
]


async def test_invalid_requests_name_field_rule_and_value(heads: Path, serving: MakeServer) -> None:
    """INVALID_ARGUMENT with what is wrong, and the places are free again."""
    async with serving(
        models=heads, max_inputs_per_request=8, max_tokens_per_request=1000
    ) as running:
        for fields, message in REFUSALS:
            values = dict(fields)
            texts = values.pop("inputs", ["the cat"])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await tag(running, texts, **values)
            assert status_of(caught.value) == f"INVALID_ARGUMENT: {message}"
        assert running.num_outstanding == 0


async def test_windows_take_places(heads: Path, serving: MakeServer) -> None:
    """Each window is an input: what does not fit beside others is refused for now."""
    async with serving(models=heads, max_outstanding=8, max_inputs_per_request=8) as running:
        admission = running.registry.find("classify_tokens", "", None).admission
        values = SIMPLE | {"stride": 0}
        assert (await tag(running, ["the " * 400], **values))[0].window_count == 6
        with admission.admit(4), pytest.raises(grpc.aio.AioRpcError) as caught:
            await tag(running, ["the " * 400], **values)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert running.num_outstanding == 0
