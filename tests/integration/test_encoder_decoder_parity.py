"""Every encoder-decoder family answers as ``transformers`` does, over the real server.

Each family is exported from a tiny folder in its original layout. ``transformers`` then generates
from 64 sources in groups of equal length, so that it pads nothing; the server gets the same sources
in one call per set of options, where they share batches of all lengths.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from parity_table import ParityTable
from seqserve.client import AsyncClient, CallError, Hypothesis
from seqserve.manifest import Manifest, read_manifest
from seqserve_export.exporter import export_model
from seqserve_export.tokenization.folder_tokenizers import FolderTokenizers, read_folder_tokenizers
from seqserve_export.tokenization.sample_lines import SENTENCES
from serving import MakeServer
from tiny_hugging_face import FAMILIES, make_hugging_face_folder

LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34)
SOURCES_PER_LENGTH = 8
MAX_NEW_TOKENS = 14
SCORE_TOLERANCE = 1e-4
TIE_TOLERANCE = 1e-5
"""Hypotheses whose scores are closer than this may change places."""

OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "greedy, ruled": {
        "num_beams": 1,
        "no_repeat_ngram_size": 3,
        "min_new_tokens": 6,
        "repetition_penalty": 1.3,
    },
    "beam 4, length penalty 0.6": {"num_beams": 4, "length_penalty": 0.6, "early_stopping": False},
    "beam 4, length penalty 1, early stopping, 4 best": {
        "num_beams": 4,
        "length_penalty": 1.0,
        "early_stopping": True,
        "num_return_sequences": 4,
    },
    "beam 4, length penalty 2, 4 best": {
        "num_beams": 4,
        "length_penalty": 2.0,
        "early_stopping": False,
        "num_return_sequences": 4,
    },
    "beam 4, ruled, forced first token": {
        "num_beams": 4,
        "no_repeat_ngram_size": 3,
        "min_new_tokens": 5,
        "repetition_penalty": 1.2,
        "forced_bos_token_id": 7,
        "length_penalty": 1.0,
        "early_stopping": True,
    },
}


@dataclasses.dataclass(frozen=True)
class Exported:
    """A family in both forms."""

    family: str
    store: Path
    model: Any
    tokenizers: FolderTokenizers
    manifest: Manifest


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny folder of a family, exported, and loaded by ``transformers``."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp(request.param)
    folder = make_hugging_face_folder(request.param, root / "source", seed=1)
    report = export_model(folder, root / "store", name="model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager")
    return Exported(
        family=request.param,
        store=root / "store",
        model=model.eval(),
        tokenizers=read_folder_tokenizers(folder, config),
        manifest=read_manifest(report.folder),
    )


def make_sources(exported: Exported) -> list[list[int]]:
    """64 sources, eight of each length, without padding in them."""
    generator = np.random.default_rng(7)
    size = exported.manifest.source_vocabulary_size
    pad = exported.model.config.pad_token_id
    allowed = np.array([token for token in range(size) if token != pad])
    return [
        generator.choice(allowed, length).tolist()
        for length in LENGTHS
        for _ in range(SOURCES_PER_LENGTH)
    ]


@torch.no_grad()
def generate(
    exported: Exported, sources: list[list[int]], options: dict[str, Any]
) -> list[list[tuple[tuple[int, ...], float]]]:
    """Tokens and scores of the hypotheses of sources of one length, from ``transformers``."""
    outputs = exported.model.generate(
        torch.tensor(sources),
        attention_mask=torch.ones(len(sources), len(sources[0]), dtype=torch.long),
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        **options,
    )
    num_each = options.get("num_return_sequences", 1)
    eos = exported.model.generation_config.eos_token_id
    rows = []
    for row, tokens in enumerate(outputs.sequences[:, 1:].tolist()):
        tokens = tokens[: tokens.index(eos) + 1] if eos in tokens else tokens
        if options["num_beams"] > 1:
            score = float(outputs.sequences_scores[row])
        else:
            score = _greedy_score(outputs, row, tokens)
        rows.append((tuple(tokens), score))
    return [rows[start : start + num_each] for start in range(0, len(rows), num_each)]


def _greedy_score(outputs: Any, row: int, tokens: list[int]) -> float:
    """The sum of log-probabilities; forced tokens, which leave no choice, count 0."""
    total = 0.0
    for step, token in enumerate(tokens):
        is_forced = bool(outputs.scores[step][row].isfinite().sum() == 1)
        if not is_forced:
            total += float(outputs.logits[step][row].log_softmax(-1)[token])
    return total


def is_equal(expected: list[tuple[tuple[int, ...], float]], found: list[Hypothesis]) -> bool:
    """Whether tokens and scores are the same, in the same order, near ties aside."""
    if len(expected) != len(found):
        return False
    scores = [score for _, score in expected]
    for rank, ((tokens, score), hypothesis) in enumerate(zip(expected, found, strict=True)):
        assert hypothesis.score is not None
        if abs(hypothesis.score - score) > SCORE_TOLERANCE:
            return False
        if hypothesis.token_ids != tokens:
            is_tied = any(
                tokens_of == hypothesis.token_ids and abs(scores[other] - score) <= TIE_TOLERANCE
                for other, (tokens_of, _) in enumerate(expected)
                if other != rank
            )
            if not is_tied:
                return False
    return True


def to_server(exported: Exported, options: dict[str, Any]) -> dict[str, Any]:
    """The options as the server takes them: it is told a language by its name."""
    languages = exported.tokenizers.languages
    if languages is None or languages.target_mode == "source_prefix":
        return options
    if "forced_bos_token_id" in options and languages.target_mode == "forced_bos":
        return options
    return options | {"target_language": _last_language(exported)}


def to_transformers(exported: Exported, options: dict[str, Any]) -> dict[str, Any]:
    """The options as ``transformers`` takes them: it is told a language by its token."""
    languages = exported.tokenizers.languages
    if languages is None or languages.target_mode == "source_prefix":
        return options
    token_id = languages.target_codes[_last_language(exported)]
    if languages.target_mode == "decoder_start":
        return options | {"decoder_start_token_id": token_id}
    return {"forced_bos_token_id": token_id} | options


def _last_language(exported: Exported) -> str:
    assert exported.tokenizers.languages is not None
    return list(exported.tokenizers.languages.target_codes)[-1]


async def test_hypotheses_are_those_of_transformers(
    exported: Exported, serving: MakeServer, parity_table: ParityTable
) -> None:
    """Same tokens for 64 ragged sources and every set of options, scores within 1e-4."""
    sources = make_sources(exported)
    differences = []
    async with (
        serving(models=exported.store) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        for name, values in OPTIONS.items():
            options = values | {"max_new_tokens": MAX_NEW_TOKENS}
            theirs = to_transformers(exported, options)
            results = await client.generate(
                sources, return_scores=True, **to_server(exported, options)
            )
            for start in range(0, len(sources), SOURCES_PER_LENGTH):
                group = sources[start : start + SOURCES_PER_LENGTH]
                for source, expected, result in zip(
                    group,
                    generate(exported, group, theirs),
                    results[start : start + SOURCES_PER_LENGTH],
                    strict=True,
                ):
                    found = list(result.hypotheses)
                    if not is_equal(expected, found):
                        # transformers may depend on its batch; alone it does not.
                        (expected,) = generate(exported, [source], theirs)
                    assert is_equal(expected, found), f"{name}, {source}: {found}, not {expected}"
                    differences += [
                        abs(score - (hypothesis.score or 0.0))
                        for (_, score), hypothesis in zip(expected, found, strict=True)
                    ]
    parity_table.add_generation(exported.family, exported.manifest, differences)


async def test_texts_are_read_as_transformers_reads_them(
    exported: Exported, serving: MakeServer
) -> None:
    """Texts, between languages where there are some, become the same targets with the same text."""
    original = exported.tokenizers.original
    languages = exported.tokenizers.languages
    texts = [sentence[:40] for sentence in SENTENCES[::4]]
    fields: dict[str, Any] = {}
    options: dict[str, Any] = {"num_beams": 2, "length_penalty": 1.0, "max_new_tokens": 8}
    their_texts = texts
    if languages is not None:
        fields["target_language"] = _last_language(exported)
        if languages.source_codes:
            fields["source_language"] = next(iter(languages.source_codes))
            original.src_lang = fields["source_language"]
            if exported.family == "plbart":
                original.src_lang = f"__{fields['source_language']}__"
        else:
            their_texts = [f">>{fields['target_language']}<< {text}" for text in texts]
    async with (
        serving(models=exported.store) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        results = await client.generate(texts, **fields, **options)
        info = await client.get_model()
    for text, result in zip(their_texts, results, strict=True):
        tokens = original(text)["input_ids"]
        ((wanted,),) = generate(exported, [tokens], to_transformers(exported, options))
        assert result.source_token_count == len(tokens)
        assert result.hypotheses[0].token_ids == wanted[0]
        assert result.text == original.decode(list(wanted[0]), skip_special_tokens=True)
    assert info.generation is not None
    if languages is not None:
        assert info.generation.target_languages == tuple(sorted(languages.target_codes))
    assert info.generation.num_beams == (exported.model.generation_config.num_beams or 1)


async def test_languages_share_a_batch(exported: Exported, serving: MakeServer) -> None:
    """Inputs between different languages in one call come out as alone."""
    languages = exported.tokenizers.languages
    if languages is None:
        assert exported.manifest.generation is not None
        assert exported.manifest.generation.languages is None
        return
    codes = list(languages.target_codes)[:3]
    sources = list(languages.source_codes)[:3] or [""] * 3
    text = SENTENCES[0][:30]
    async with (
        serving(models=exported.store) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        options: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 6}
        together = await client.generate(
            [text] * len(codes),
            source_language=sources[: len(codes)],
            target_language=codes,
            **options,
        )
        for source, target, result in zip(sources, codes, together, strict=False):
            (alone,) = await client.generate(
                text, source_language=source, target_language=target, **options
            )
            assert alone.hypotheses == result.hypotheses
            if languages.target_mode == "forced_bos":
                assert result.hypotheses[0].token_ids[0] == languages.target_codes[target]
        with pytest.raises(CallError, match="does not know; ") as caught:
            await client.generate(text, source_language=sources[0], target_language="xx-unknown")
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "inputs[0].target_language" in caught.value.fields


@torch.no_grad()
def score(exported: Exported, source: list[int], target: list[int]) -> list[float]:
    """The log-probability of each token of a target, from the logits of ``transformers``."""
    assert exported.manifest.generation is not None
    start = exported.manifest.generation.decoder_start_token_id
    start = to_transformers(exported, {}).get("decoder_start_token_id", start)
    logits = exported.model(
        input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[start, *target[:-1]]])
    ).logits[0]
    tokens = torch.tensor(target)[:, None]
    return [float(one) for one in logits.log_softmax(-1).gather(1, tokens)[:, 0]]


async def test_given_targets_are_as_probable_as_in_transformers(
    exported: Exported, serving: MakeServer
) -> None:
    """Targets of several lengths for ragged sources: every log-probability within 1e-4."""
    sources = make_sources(exported)[::SOURCES_PER_LENGTH]
    generator = np.random.default_rng(3)
    assert exported.manifest.generation is not None
    size = exported.manifest.generation.target_vocabulary_size
    # Among others M2M100 counts positions without padding, which no target has.
    pad = exported.model.config.pad_token_id
    allowed = np.array([token for token in range(size) if token != pad])
    lengths = (1, 4, 9, 2, 3, 14, 1, 1, 6, 2)  # more than there may be beams
    targets = [[generator.choice(allowed, length).tolist() for length in lengths] for _ in sources]
    async with (
        serving(models=exported.store, max_num_beams=8) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        scorings = await client.score(sources, targets, **to_server(exported, {}))
    for source, given, scoring in zip(sources, targets, scorings, strict=True):
        for target, found in zip(given, scoring.scores, strict=True):
            assert [token.token_id for token in found.tokens] == target
            expected = score(exported, source, target)
            log_probabilities = [token.log_probability for token in found.tokens]
            assert log_probabilities == pytest.approx(expected, abs=SCORE_TOLERANCE)
            assert found.total_log_probability == pytest.approx(sum(expected), abs=SCORE_TOLERANCE)
            assert found.mean_log_probability == pytest.approx(
                sum(expected) / len(target), abs=SCORE_TOLERANCE
            )


async def test_target_texts_are_scored_as_the_labels_of_training(
    exported: Exported, serving: MakeServer
) -> None:
    """The language that is written first and the end token are added; nothing after the end is."""
    original = exported.tokenizers.original
    fields = to_server(exported, {})
    languages = exported.tokenizers.languages
    if languages is not None and languages.source_codes:
        fields["source_language"] = next(iter(languages.source_codes))
    if languages is not None:
        fields["target_language"] = _last_language(exported)
        if languages.source_codes:
            original.tgt_lang = fields["target_language"]
            if exported.family == "plbart":
                original.tgt_lang = f"__{fields['target_language']}__"
    texts = [sentence[:20] for sentence in SENTENCES[:3]]
    async with (
        serving(models=exported.store) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        (scoring,) = await client.score(SENTENCES[3][:20], texts, **fields)
    for text, found in zip(texts, scoring.scores, strict=True):
        labels = original(text_target=text)["input_ids"]
        if languages is not None and languages.target_mode == "decoder_start":
            assert labels.pop() == languages.target_codes[fields["target_language"]]
        assert [token.token_id for token in found.tokens] == labels
        entries = original.convert_ids_to_tokens(labels)
        assert [token.text for token in found.tokens] == entries
