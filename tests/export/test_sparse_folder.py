"""Folders of sparse sentence-transformers: the same embeddings, or a refusal by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder
from tokenizers import Tokenizer

from seqserve.manifest import Manifest, read_manifest
from seqserve.task_record import SparseRecord, Task
from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.exporter import export_model
from seqserve_export.graphs import EmbedGraph
from seqserve_export.onnx_runner import Floats, SourceRunner
from seqserve_export.pooling import PoolingChoice
from seqserve_export.source import EmbeddingSource
from seqserve_export.source_folder import read_source_folder
from seqserve_export.verification import make_row, torch_reference
from tiny_encoder_folder import VOCABULARY_SIZE, find_variant, make_tiny_encoder_folder
from tiny_sentence_folder import write_json
from tiny_sparse_folder import make_masked_language_folder, make_older, make_sparse_folder

TEXTS = ("the cat sat on the mat", "dog", "rain fell over the hills and nobody walked", "mat " * 50)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny folder, to be changed."""
    return make_sparse_folder(tmp_path / "folder")


def _embed(folder: Path) -> tuple[Manifest, Floats]:
    """Embeds with what is in a served folder, and nothing else."""
    manifest = read_manifest(folder)
    assert manifest.embedding is not None
    tokenizer = Tokenizer.from_file(str(folder / manifest.source_tokenizer))
    tokenizer.enable_truncation(manifest.max_source_length)
    sources = [encoding.ids for encoding in tokenizer.encode_batch(list(TEXTS))]
    runner = SourceRunner(folder / manifest.embedding.embed_graph, padding_token=5)
    return manifest, runner.run(sources)["sentence_embedding"]


def _expect(folder: Path) -> np.ndarray:
    """What the library makes of the same texts."""
    encoder = SparseEncoder(str(folder), device="cpu")
    return np.asarray(encoder.encode(list(TEXTS), convert_to_sparse_tensor=False))


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_embeddings_equal_the_library(strategy: str, activation: str, tmp_path: Path) -> None:
    """Whatever makes weights of logits, and one of many weights."""
    folder = make_sparse_folder(tmp_path / "folder", strategy, activation)
    report = export_model(folder, tmp_path / "store")
    manifest, embeddings = _embed(report.folder)
    expected = _expect(folder)
    np.testing.assert_allclose(embeddings, expected, atol=2e-5)
    assert 0 < np.count_nonzero(expected) < expected.size / 2
    assert np.array_equal(embeddings > 0, expected > 0)
    assert manifest.is_batch_invariant
    assert manifest.tasks == (Task.EMBED,)
    record = manifest.embedding
    assert record is not None
    assert (record.pooling, record.embedding_size) == (f"splade_{strategy}", VOCABULARY_SIZE)
    assert record.sparse is not None
    assert record.sparse.activation == activation


def test_older_folders_are_read(folder: Path) -> None:
    """What the library saved before it had one class of encoders reads the same."""
    tokens, lengths = make_row([5, 9, 17, 6, 40])
    embeddings = []
    for one in (folder, make_older(folder)):
        source = read_source_folder(one, is_pickle_allowed=False)
        assert isinstance(source, EmbeddingSource)
        assert source.max_source_length == 40
        with torch_reference():
            embeddings.append(EmbedGraph(source.model, source.pooler)(tokens, lengths)[0])
    assert torch.equal(*embeddings)


@pytest.mark.parametrize(
    ("family", "pooling"), [("bert", "splade_max"), ("distilbert", "splade_sum")]
)
def test_masked_language_models_embed_if_asked(
    family: str, pooling: PoolingChoice, tmp_path: Path
) -> None:
    """As the library embeds with such a folder; unasked it fills masks."""
    folder = make_masked_language_folder(tmp_path / "folder", family)
    report = export_model(folder, tmp_path / "store", pooling=pooling)
    encoder: Any = SparseEncoder(str(folder), device="cpu")
    encoder[1].pooling_strategy = pooling.removeprefix("splade_")
    encoder.max_seq_length = report.manifest.max_source_length
    expected = np.asarray(encoder.encode(list(TEXTS), convert_to_sparse_tensor=False))
    manifest, embeddings = _embed(report.folder)
    np.testing.assert_allclose(embeddings, expected, atol=2e-5)
    assert manifest.embedding is not None
    assert manifest.embedding.pooling == pooling
    assert read_source_folder(folder, is_pickle_allowed=False).task == Task.FILL_MASK  # type: ignore[union-attr]


def test_int8_keeps_the_weights_close(folder: Path, tmp_path: Path) -> None:
    """The encoder is quantized, the head is not; the gates of embeddings hold."""
    report = export_model(folder, tmp_path / "store", dtype="int8")
    assert report.manifest.is_batch_invariant
    _, embeddings = _embed(report.folder)
    expected = _expect(folder)
    cosines = (embeddings * expected).sum(axis=1)
    cosines /= np.linalg.norm(embeddings, axis=1) * np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.99


def test_settings_of_the_folder_are_read(tmp_path: Path) -> None:
    """Prompts, the longest source, how many weights are kept."""
    folder = make_sparse_folder(
        tmp_path / "folder",
        prompts={"query": "the ", "document": ""},
        default_prompt_name="query",
        max_active_dims=7,
        max_length=21,
    )
    source = read_source_folder(folder, is_pickle_allowed=False)
    assert isinstance(source, EmbeddingSource)
    assert source.prompts.texts == {"query": "the ", "document": ""}
    assert source.prompts.default == "query"
    assert source.max_source_length == 21
    assert source.sparse_record == SparseRecord(activation="relu", max_active_dims=7)
    assert not source.is_normalized


_LIBRARY = "sentence_transformers.sparse_encoder.modules"


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["Router"], "module Router is not supported; supported are .*MLMTransformer with Splade"),
        (["SparseStaticEmbedding"], "module SparseStaticEmbedding is not supported"),
        (["Transformer", "Pooling", "SparseAutoEncoder"], "module SparseAutoEncoder is not suppor"),
        (["MLMTransformer", "Pooling"], "module MLMTransformer is not supported"),
        (
            ["MLMTransformer", "SpladePooling", "Normalize"],
            "modules MLMTransformer, SpladePooling, Normalize are not supported; of sparse",
        ),
    ],
)
def test_other_modules_are_refused_by_name(kinds: list[str], message: str, folder: Path) -> None:
    """Those without inference, and those that make weights otherwise."""
    modules = [
        {"idx": index, "name": str(index), "path": "", "type": f"{_LIBRARY}.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    with pytest.raises(UnsupportedError, match=message):
        read_source_folder(folder, is_pickle_allowed=False)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "1_SpladePooling/config.json",
            {"pooling_strategy": "mean"},
            "strategy 'mean' and activation 'relu' .* supported are the strategies 'max' and 'sum'",
        ),
        (
            "1_SpladePooling/config.json",
            {"activation_function": "gelu"},
            "strategy 'max' and activation 'gelu' .* the activations 'relu', 'log1p_relu'",
        ),
        (
            "sentence_bert_config.json",
            {"transformer_task": "feature-extraction"},
            "\"transformer_task\" 'feature-extraction' .* supported is 'fill-mask'",
        ),
        (
            "config.json",
            {"architectures": ["BertModel"]},
            r"sparse embeddings \(splade_max\) are made of the logits of a masked language model",
        ),
    ],
)
def test_other_settings_are_refused(
    name: str, change: dict[str, Any], message: str, folder: Path
) -> None:
    """With what was found and what is supported."""
    path = folder / name
    write_json(path, json.loads(path.read_bytes()) | change)
    with pytest.raises(UnsupportedError, match=message):
        read_source_folder(folder, is_pickle_allowed=False)


@pytest.mark.parametrize("limit", [0, -1, "many", True])
def test_limits_that_are_none_are_refused(limit: object, folder: Path) -> None:
    """With the file, the rule and what was found."""
    write_json(folder / "config_sentence_transformers.json", {"max_active_dims": limit})
    with pytest.raises(
        CheckpointError, match=rf'"max_active_dims" must be a number from 1 up, but is {limit!r}'
    ):
        read_source_folder(folder, is_pickle_allowed=False)


def test_absent_pooling_is_named(folder: Path) -> None:
    """A folder without the file of its pooling is refused."""
    (folder / "1_SpladePooling" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"1_SpladePooling/config\.json"):
        read_source_folder(folder, is_pickle_allowed=False)


def test_other_heads_make_no_sparse_embeddings(tmp_path: Path) -> None:
    """The option needs a masked language model, in a folder that does not say otherwise."""
    classifier = make_tiny_encoder_folder(tmp_path / "a", find_variant("bert"), Task.CLASSIFY)
    with pytest.raises(UnsupportedError, match="does something else: classify"):
        read_source_folder(classifier, is_pickle_allowed=False, pooling="splade_max")
    with pytest.raises(UnsupportedError, match="pooling 'splade_sum' cannot be chosen for"):
        read_source_folder(
            make_sparse_folder(tmp_path / "b"), is_pickle_allowed=False, pooling="splade_sum"
        )


def test_pooling_over_logits_is_refused(folder: Path) -> None:
    """Dense pooling of what a masked language model predicts is not that of its states."""
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    with pytest.raises(UnsupportedError, match=r"transformer_task.* 'fill-mask' .* is 'feature-"):
        read_source_folder(folder, is_pickle_allowed=False)
