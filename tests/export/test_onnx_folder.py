"""Folders whose weights are in ONNX graphs of Optimum: read like any other."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from seqserve.task_record import Task
from seqserve_export.errors import CheckpointError
from seqserve_export.exporter import export_model
from seqserve_export.mapping_verification import compare_with_transformers
from seqserve_export.onnx_weights import read_graph_weights
from seqserve_export.source import EmbeddingSource, GenerationSource, PredictionSource, Source
from seqserve_export.source_folder import read_source_folder
from seqserve_export.weights import measure_weights
from tiny_encoder_folder import MODEL_CLASSES, find_variant, make_tiny_encoder_folder
from tiny_hugging_face import make_hugging_face_folder
from tiny_onnx_folders import (
    change_graph,
    make_onnx_encoder,
    merge_decoders,
    replace_encoder_decoder_weights,
    replace_encoder_weights,
    use_external_data,
)
from tiny_sentence_folder import make_tiny_sentence_folder

ENCODERS = (
    ("bert", Task.EMBED),
    ("bert", Task.CLASSIFY),
    ("bert", Task.FILL_MASK),
    ("roberta", Task.RERANK),
    ("roberta", Task.FILL_MASK),
    ("distilbert", Task.CLASSIFY_TOKENS),
    ("distilbert", Task.FILL_MASK),
    # Modules that are called several times.
    ("albert", Task.FILL_MASK),
    ("deberta-v3", Task.CLASSIFY),
)
ENCODER_DECODERS = ("marian", "marian-separate", "bart", "m2m_100", "t5", "t5-v1.1")


def _read(folder: Path) -> Source:
    return read_source_folder(folder, is_pickle_allowed=False)


def _check_same_weights(expected: nn.Module, actual: nn.Module) -> None:
    """Two models have the same tensors, bit for bit, and share the same ones."""
    theirs, ours = dict(expected.named_parameters()), dict(actual.named_parameters())
    assert list(theirs) == list(ours)
    for name, weight in theirs.items():
        assert torch.equal(weight, ours[name]), name


@pytest.mark.parametrize(("name", "task"), ENCODERS)
def test_encoder_is_read_from_its_graph(name: str, task: Task, tmp_path: Path) -> None:
    """The weights are those of the SafeTensors, and the graph computes what our model does."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant(name), task)
    expected = _read(folder)
    replace_encoder_weights(folder, MODEL_CLASSES[task])
    source = _read(folder)
    assert isinstance(source, EmbeddingSource | PredictionSource)
    assert source.checks[-1].check == "checkpoint: ONNX graph and our model, single rows"
    assert source.checks[-1].count == 12 + 1 + 6
    assert source.checks[-1].max_abs_difference < 1e-5
    _check_same_weights(expected.model, source.model)
    if isinstance(source, PredictionSource):
        assert isinstance(expected, PredictionSource)
        assert (source.task, source.record) == (task, expected.record)
        _check_same_weights(expected.head, source.head)


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_encoder_decoder_is_read_from_its_graphs(family: str, tmp_path: Path) -> None:
    """The same for two graphs; what is shared in the one folder is shared in the other."""
    folder = make_hugging_face_folder(family, tmp_path / family)
    expected = _read(folder)
    replace_encoder_decoder_weights(folder)
    source = _read(folder)
    assert isinstance(expected, GenerationSource)
    assert isinstance(source, GenerationSource)
    comparison = compare_with_transformers(source)
    assert comparison.check.startswith("mapping: ONNX graphs and our Transformer")
    assert comparison.count == 16
    assert comparison.max_abs_difference < 1e-5
    assert source.model.config == expected.model.config
    _check_same_weights(expected.model, source.model)


@pytest.mark.parametrize(
    ("name", "task"),
    [("bert", Task.EMBED), ("roberta", Task.FILL_MASK), ("distilbert", Task.CLASSIFY_TOKENS)],
)
def test_encoder_is_exported(name: str, task: Task, tmp_path: Path) -> None:
    """From graph to served model, the comparison with the graph recorded."""
    folder = make_onnx_encoder(tmp_path / name, name, task)
    manifest = export_model(folder, tmp_path / "store").manifest
    assert manifest.tasks == (task,)
    checks = [record.check for record in manifest.verification]
    assert "checkpoint: ONNX graph and our model, single rows" in checks
    assert manifest.is_batch_invariant


def test_encoder_decoder_is_exported(tmp_path: Path) -> None:
    """The same for an encoder-decoder, in int8: its graphs in fp32 are what it is made of."""
    folder = make_hugging_face_folder("marian", tmp_path / "marian")
    replace_encoder_decoder_weights(folder)
    report = export_model(folder, tmp_path / "store", dtype="int8")
    checks = [record.check for record in report.manifest.verification]
    assert "mapping: ONNX graphs and our Transformer, states and logits" in checks
    graphs = [folder / name for name in ("encoder_model.onnx", "decoder_model.onnx")]
    assert report.plan.source_bytes == sum(path.stat().st_size for path in graphs)


def test_merged_decoder_is_read(bart_graphs: Path, bart_copy: Path) -> None:
    """Weights outside of two branches, under new names, are found by what the nodes are called."""
    merge_decoders(bart_copy)
    expected, source = _read(bart_graphs), _read(bart_copy)
    assert isinstance(source, GenerationSource)
    assert compare_with_transformers(source).max_abs_difference < 1e-5
    _check_same_weights(expected.model, source.model)


def test_sub_folder_and_external_data_are_read(tmp_path: Path) -> None:
    """Graphs may lie in onnx/, with their numbers beside them."""
    folder = make_onnx_encoder(tmp_path)
    expected = _read(folder)
    use_external_data(folder / "model.onnx")
    (folder / "onnx").mkdir()
    for name in ("model.onnx", "model.onnx_data"):
        (folder / name).rename(folder / "onnx" / name)
    size = sum(path.stat().st_size for path in (folder / "onnx").iterdir())
    assert measure_weights(folder) == size
    _check_same_weights(expected.model, _read(folder).model)


def test_graphs_of_another_folder_do_not_hide(bart_graphs: Path, bart_copy: Path) -> None:
    """The first place with all that is needed counts."""
    (bart_copy / "onnx").mkdir()
    for path in bart_copy.glob("*.onnx"):
        path.rename(bart_copy / "onnx" / path.name)
    (bart_copy / "decoder_model.onnx").write_bytes(b"left over")
    _check_same_weights(_read(bart_graphs).model, _read(bart_copy).model)
    (bart_copy / "onnx" / "encoder_model.onnx").unlink()
    message = r"bart holds decoder_model.onnx, but not encoder_model.onnx; .*onnx holds decoder_mod"
    with pytest.raises(CheckpointError, match=message):
        _read(bart_copy)


def test_equal_tensors_are_read(tmp_path: Path) -> None:
    """Tensors with equal numbers are in a graph once, with copies of other names."""
    folder = make_hugging_face_folder("bart", tmp_path / "bart", is_filled=False)
    expected = _read(folder)
    replace_encoder_decoder_weights(folder)
    nodes = onnx.load(folder / "decoder_model.onnx").graph.node
    assert any(node.op_type == "Identity" for node in nodes)
    _check_same_weights(expected.model, _read(folder).model)


def test_unfolded_transpositions_are_read(tmp_path: Path) -> None:
    """A named weight that a node transposes first is the weight itself, head or not."""
    path = make_onnx_encoder(tmp_path) / "model.onnx"
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    expected = read_graph_weights(path, is_head_tied=True)

    def unfold(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.name.endswith("intermediate/dense/MatMul"))
        folded = next(w for w in model.graph.initializer if w.name == node.input[1])
        weight = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(folded).T.copy(), name)
        model.graph.initializer.append(weight)
        transpose = onnx.helper.make_node("Transpose", [name], ["unfolded"], perm=[1, 0])
        model.graph.node.insert(0, transpose)
        node.input[1] = "unfolded"

    change_graph(path, unfold)
    weights = read_graph_weights(path, is_head_tied=True)
    assert weights.keys() == expected.keys()
    assert torch.equal(weights[name], expected[name])


def test_tables_of_integers_are_no_weights(tmp_path: Path) -> None:
    """Positions may be stored under a name of torch, too."""
    path = make_onnx_encoder(tmp_path) / "model.onnx"
    expected = read_graph_weights(path, is_head_tied=True)
    name = "bert.embeddings.position_ids"

    def store(model: onnx.ModelProto) -> None:
        positions = onnx.numpy_helper.from_array(np.arange(80)[None], name)
        model.graph.initializer.append(positions)
        node = onnx.helper.make_node("Gather", [name, "input_ids"], ["positions"], "/bert/Gather")
        model.graph.node.append(node)

    change_graph(path, store)
    assert read_graph_weights(path, is_head_tied=True).keys() == expected.keys()


def test_sentence_folder_is_read_from_its_graph(tmp_path: Path) -> None:
    """Pooling comes from the files of sentence-transformers, the encoder from its graph."""
    folder = make_tiny_sentence_folder(tmp_path, 1)
    expected = _read(folder)
    replace_encoder_weights(folder, MODEL_CLASSES[Task.EMBED])
    source = _read(folder)
    assert isinstance(source, EmbeddingSource)
    assert (source.pooling, source.is_normalized) == (("mean",), True)
    assert source.checks[-1].check.startswith("checkpoint: ONNX graph")
    _check_same_weights(expected.model, source.model)


def test_safetensors_come_before_graphs(tmp_path: Path) -> None:
    """A graph beside SafeTensors is not looked at; beside a pickle that is not allowed, it is."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant("bert"), Task.CLASSIFY)
    (folder / "model.onnx").write_bytes(b"no graph")
    source = _read(folder)
    assert isinstance(source, PredictionSource)
    assert source.checks[-1].check.startswith("checkpoint: transformers")
    replace_encoder_weights(folder, MODEL_CLASSES[Task.CLASSIFY])
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    source = _read(folder)
    assert isinstance(source, PredictionSource)
    assert source.checks[-1].check.startswith("checkpoint: ONNX graph")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin is not a plain table"):
        read_source_folder(folder, is_pickle_allowed=True)


def test_graph_without_head_embeds_with_a_note(tmp_path: Path) -> None:
    """Optimum exports without the head on request, and the configuration still names it."""
    folder = make_tiny_encoder_folder(tmp_path, find_variant("bert"), Task.FILL_MASK)
    replace_encoder_weights(folder, MODEL_CLASSES[Task.EMBED])
    source = read_source_folder(folder, is_pickle_allowed=False, pooling="cls")
    assert isinstance(source, EmbeddingSource)
    assert source.notes == (
        '"architectures" names BertForMaskedLM, but the graph has no head: the model embeds',
    )


def test_types_that_the_graph_lacks_are_noted(tmp_path: Path) -> None:
    """Where the configuration has types of tokens and the graph does not, the note says so."""
    source = _read(make_onnx_encoder(tmp_path, "roberta", Task.RERANK))
    assert source.notes == (
        "the graph takes no types of tokens: what they do to pairs was not compared",
    )
