"""Prefixes, suppressed sequences, top tokens and alternatives, as ``transformers`` has them.

Over the real server, where requests with all of these options share batches.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from seqserve.client import AsyncClient, CallError, Hypothesis
from seqserve.manifest import Manifest, read_manifest
from seqserve_export.exporter import export_model
from seqserve_export.tokenization.folder_tokenizers import read_folder_tokenizers
from serving import MakeServer, RunningServer
from tiny_hugging_face import make_hugging_face_folder

FAMILIES = ("marian", "nllb", "t5")
"""One with a forced last token, one with a forced first token, one with relative positions."""
MAX_NEW_TOKENS = 10
TOLERANCE = 1e-4
_BAD_WORDS = [[11, 12], [9, 13, 10], [14]]
"""Of the generation config of each folder."""

SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "greedy, ruled": {"num_beams": 1, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "beam 4": {"num_beams": 4, "length_penalty": 0.7, "num_return_sequences": 4},
    "beam 4, ruled": {
        "num_beams": 4,
        "length_penalty": 1.0,
        "early_stopping": True,
        "min_new_tokens": 4,
        "no_repeat_ngram_size": 2,
    },
}


@dataclasses.dataclass(frozen=True)
class Exported:
    """A family in both forms."""

    store: Path
    model: Any
    tokenizer: Any
    manifest: Manifest
    language: str
    """To write; empty if the model is not told."""
    forced: list[int]
    """The first token of targets, if a language is told by it."""


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny folder of a family with bad words, exported, and loaded by ``transformers``."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp(request.param)
    folder = make_hugging_face_folder(request.param, root / "source", seed=2)
    model: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    pad, eos = model.config.pad_token_id, model.generation_config.eos_token_id
    model.generation_config.bad_words_ids = [*_BAD_WORDS, [pad], [eos]]
    model.generation_config.save_pretrained(folder)
    report = export_model(folder, root / "store", name="model")
    manifest = read_manifest(report.folder)
    assert manifest.generation is not None
    languages = manifest.generation.languages
    language, forced = "", []
    if languages is not None:
        language = min(languages.target)
        forced = [languages.target[language]]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = read_folder_tokenizers(folder, config).original
    return Exported(root / "store", model.eval(), tokenizer, manifest, language, forced)


def make_sources(exported: Exported, count: int) -> list[list[int]]:
    """Sources of several lengths, without padding in them."""
    generator = np.random.default_rng(7)
    size = exported.manifest.source_vocabulary_size
    allowed = np.setdiff1d(np.arange(size), [exported.model.config.pad_token_id])
    return [generator.choice(allowed, 3 + index % 5).tolist() for index in range(count)]


def make_prefixes(exported: Exported, count: int) -> list[list[int]]:
    """Prefixes of several lengths, without special tokens."""
    generator = np.random.default_rng(8)
    return [generator.integers(8, 30, 1 + index % 4).tolist() for index in range(count)]


@torch.no_grad()
def generate(
    exported: Exported, source: list[int], prefix: list[int], **options: Any
) -> list[tuple[tuple[int, ...], float | None]]:
    """Targets and beam scores from ``transformers``, the prefix included."""
    record = exported.manifest.generation
    assert record is not None
    outputs = exported.model.generate(
        torch.tensor([source]),
        decoder_input_ids=torch.tensor([[record.decoder_start_token_id, *prefix]]),
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        max_new_tokens=MAX_NEW_TOKENS,
        **options,
    )
    found = []
    for row, tokens in enumerate(outputs.sequences[:, 1:].tolist()):
        eos = record.eos_token_id
        tokens = tokens[: tokens.index(eos) + 1] if eos in tokens else tokens
        score = float(outputs.sequences_scores[row]) if options["num_beams"] > 1 else None
        found.append((tuple(tokens), score))
    return found


@torch.no_grad()
def log_probabilities(
    exported: Exported, source: list[int], tokens: tuple[int, ...]
) -> torch.Tensor:
    """What the model of ``transformers`` gives after each token of a target, [T, V]."""
    assert exported.manifest.generation is not None
    start = exported.manifest.generation.decoder_start_token_id
    outputs = exported.model(
        input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[start, *tokens[:-1]]])
    )
    values: torch.Tensor = outputs.logits[0].float().log_softmax(-1)
    return values


def check(found: tuple[Hypothesis, ...], expected: list[tuple[tuple[int, ...], Any]]) -> None:
    """Same tokens in the same order, and the same scores."""
    assert [one.token_ids for one in found] == [tokens for tokens, _ in expected]
    for one, (_, score) in zip(found, expected, strict=True):
        if score is not None:
            assert one.score is not None
            assert abs(one.score - score) < TOLERANCE


def connect(server: RunningServer) -> AsyncClient:
    """A client of a server."""
    return AsyncClient(f"127.0.0.1:{server.ports.grpc}")


async def test_prefixes_of_token_ids_are_decoder_inputs(
    exported: Exported, serving: MakeServer
) -> None:
    """Same tokens and beam scores as with ``decoder_input_ids``, for every search."""
    sources, prefixes = make_sources(exported, 8), make_prefixes(exported, 8)
    async with serving(models=exported.store) as server, connect(server) as client:
        for options in SEARCHES.values():
            results = await client.generate(
                sources, target_prefix=prefixes, max_new_tokens=MAX_NEW_TOKENS, **options
            )
            for source, prefix, result in zip(sources, prefixes, results, strict=True):
                check(result.hypotheses, generate(exported, source, prefix, **options))
                assert all(one.prefix_token_count == len(prefix) for one in result.hypotheses)


async def test_prefixes_of_text_come_behind_the_language(
    exported: Exported, serving: MakeServer
) -> None:
    """The tokens of the text, those of the language first; text and ids of the answer have both."""
    text = "the house"
    tokens = exported.tokenizer(text_target=text, add_special_tokens=False)["input_ids"]
    prefix = [*exported.forced, *tokens]
    sources = make_sources(exported, 4)
    options: dict[str, Any] = {
        "target_prefix": text,
        "target_language": exported.language,
        "max_new_tokens": MAX_NEW_TOKENS,
        "num_beams": 1,
    }
    async with serving(models=exported.store) as server, connect(server) as client:
        results = await client.generate(sources, **options)
        stream = client.generate_stream(sources[0], **options)
        pieces = [piece async for piece in stream]
    for source, result in zip(sources, results, strict=True):
        check(result.hypotheses, generate(exported, source, prefix, num_beams=1))
        (hypothesis,) = result.hypotheses
        assert hypothesis.prefix_token_count == len(prefix)
        expected = exported.tokenizer.decode(hypothesis.token_ids, skip_special_tokens=True)
        assert hypothesis.text == expected
    assert pieces[0].token_ids == tuple(prefix)
    assert [len(piece.token_ids) for piece in pieces[1:-1]] == [1] * len(pieces[1:-1])
    assert "".join(piece.text for piece in pieces) == results[0].text


async def test_bad_words_are_those_of_transformers(exported: Exported, serving: MakeServer) -> None:
    """Sequences of the folder and of the request, tokens of the request; they do bar something."""
    sources, prefixes = make_sources(exported, 8), make_prefixes(exported, 8)
    defaults = exported.model.generation_config.bad_words_ids
    async with serving(models=exported.store) as server, connect(server) as client:
        info = await client.get_model()
        for options in SEARCHES.values():
            plain = await client.generate(
                sources, target_prefix=prefixes, max_new_tokens=MAX_NEW_TOKENS, **options
            )
            # The second new token of each is barred behind the first one.
            words = [
                list(one.hypotheses[0].token_ids[len(prefix) : len(prefix) + 2])
                for one, prefix in zip(plain, prefixes, strict=True)
            ]
            eos = exported.model.generation_config.eos_token_id
            words = [word for word in words if len(word) == 2 and eos not in word]
            results = await client.generate(
                sources,
                target_prefix=prefixes,
                max_new_tokens=MAX_NEW_TOKENS,
                suppressed_token_ids=[17, 18],
                suppressed_sequences=words,
                **options,
            )
            num_changed = 0
            for source, prefix, result, before in zip(
                sources, prefixes, results, plain, strict=True
            ):
                bad_words = [*defaults, *words, [17], [18]]
                expected = generate(exported, source, prefix, bad_words_ids=bad_words, **options)
                check(result.hypotheses, expected)
                num_changed += result.hypotheses != before.hypotheses
            assert num_changed > 0
    assert info.generation is not None
    assert info.generation.suppressed_sequences == ((11, 12), (9, 13, 10))
    assert 14 in info.generation.suppressed_token_ids


async def test_suppressed_texts_do_not_come(exported: Exported, serving: MakeServer) -> None:
    """The best first tokens that are texts of their own are none any more, suppressed as texts."""
    sources = make_sources(exported, 6)
    options: dict[str, Any] = {
        "target_language": exported.language,
        "max_new_tokens": 2,
        "num_beams": 1,
        "num_return_sequences": 16,
        "return_alternatives": True,
    }
    place = len(exported.forced)
    async with serving(models=exported.store) as server, connect(server) as client:
        plain = await client.generate(sources, **options)
        before = {one.token_ids[place] for result in plain for one in result.hypotheses}
        texts = {}
        for token in before - {exported.model.generation_config.eos_token_id}:
            text = exported.tokenizer.decode([token]).strip()
            if exported.tokenizer(text_target=text, add_special_tokens=False).input_ids == [token]:
                texts[token] = text
        results = await client.generate(
            sources, suppressed_sequences=sorted(texts.values()), **options
        )
    after = {one.token_ids[place] for result in results for one in result.hypotheses}
    assert texts
    assert not after & texts.keys()


async def test_top_tokens_are_those_of_transformers(
    exported: Exported, serving: MakeServer
) -> None:
    """For greedy, beams and sampling: ids, pieces and log-probabilities behind the prefix."""
    sources, prefixes = make_sources(exported, 4), make_prefixes(exported, 4)
    async with serving(models=exported.store) as server, connect(server) as client:
        for options in (
            {"num_beams": 1},
            {"num_beams": 3, "num_return_sequences": 2},
            {"num_beams": 1, "do_sample": True, "seed": 1},
        ):
            results = await client.generate(
                sources,
                target_prefix=prefixes,
                max_new_tokens=MAX_NEW_TOKENS,
                top_log_probability_count=5,
                **options,  # type: ignore[arg-type]
            )
            for source, prefix, result in zip(sources, prefixes, results, strict=True):
                for one in result.hypotheses:
                    values, tokens = log_probabilities(exported, source, one.token_ids).topk(5)
                    assert len(one.top_log_probabilities) == len(one.token_ids) - len(prefix)
                    for place, top in enumerate(one.top_log_probabilities, len(prefix)):
                        assert [token.token_id for token in top] == tokens[place].tolist()
                        expected = values[place].tolist()
                        found = [token.log_probability for token in top]
                        assert found == pytest.approx(expected, abs=TOLERANCE)
                        pieces = exported.tokenizer.convert_ids_to_tokens(tokens[place].tolist())
                        # transformers does not know entries that nobody named in its files.
                        assert all(
                            piece in (None, token.piece)
                            for piece, token in zip(pieces, top, strict=True)
                        )


async def test_alternatives_are_greedy_continuations(
    exported: Exported, serving: MakeServer
) -> None:
    """By ``transformers``: the best first tokens, each as a prefix of greedy search."""
    sources, prefixes = make_sources(exported, 6), make_prefixes(exported, 6)
    bad_words = exported.model.generation_config.bad_words_ids
    single = [words[0] for words in bad_words if len(words) == 1]
    eos = exported.model.generation_config.eos_token_id
    async with serving(models=exported.store) as server, connect(server) as client:
        results = await client.generate(
            sources,
            target_prefix=prefixes,
            num_beams=1,
            max_new_tokens=MAX_NEW_TOKENS,
            return_alternatives=True,
            num_return_sequences=4,
        )
    for source, prefix, result in zip(sources, prefixes, results, strict=True):
        scores = log_probabilities(exported, source, (*prefix, 0))[-1]
        scores[[token for token in single if token != eos]] = -torch.inf
        for words in _BAD_WORDS:
            if len(words) > 1 and prefix[-len(words) + 1 :] == words[:-1]:
                scores[words[-1]] = -torch.inf
        firsts = scores.topk(4).indices.tolist()
        assert [one.token_ids[len(prefix)] for one in result.hypotheses] == firsts
        for first, one in zip(firsts, result.hypotheses, strict=True):
            if first != eos:
                ((tokens, _),) = generate(exported, source, [*prefix, first], num_beams=1)
                # The limits end one token apart.
                shared = len(prefix) + MAX_NEW_TOKENS - 1
                assert one.token_ids[:shared] == tokens[:shared]


async def test_first_token_is_said_once(exported: Exported, serving: MakeServer) -> None:
    """Neither a language nor a forced token goes with a prefix of token ids that begins with it."""
    source = make_sources(exported, 1)
    async with serving(models=exported.store) as server, connect(server) as client:
        with pytest.raises(CallError) as caught:
            await client.generate(source, target_prefix=[[9]], forced_bos_token_id=9)
        assert caught.value.code == "INVALID_ARGUMENT"
        assert "`forced_bos_token_id` has no effect with `target_prefix_token_ids`" in str(
            caught.value
        )
        if exported.forced:
            with pytest.raises(CallError, match="`target_prefix_token_ids` takes its place"):
                await client.generate(
                    source, target_prefix=[[9]], target_language=exported.language
                )


async def test_counts_and_sizes_are_bounded(exported: Exported, serving: MakeServer) -> None:
    """Before anything is tokenized."""
    source = make_sources(exported, 1)
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"suppressed_token_ids": [9] * 1025},
            "`options.suppressed_token_ids` must hold at most 1024 entries, but holds 1025",
        ),
        (
            {"suppressed_sequences": ["a"] * 257},
            "`options.suppressed_sequences` must hold at most 256 entries, but holds 257",
        ),
        (
            {"suppressed_sequences": ["a" * 257]},
            "`options.suppressed_sequences[0].text` must have at most 256 bytes, but has 257",
        ),
        (
            {"suppressed_sequences": [""]},
            "`options.suppressed_sequences[0].text` must not be empty",
        ),
        (
            {"target_prefix": "a" * 2000},
            "`inputs[0].target_prefix_text` must have at most 1000 bytes (max_input_bytes), but "
            "has 2000",
        ),
    ]
    async with (
        serving(models=exported.store, max_input_bytes=1000) as server,
        connect(server) as client,
    ):
        for options, message in cases:
            with pytest.raises(CallError) as caught:
                await client.generate(source, **options)
            assert str(caught.value) == f"INVALID_ARGUMENT: {message}"
