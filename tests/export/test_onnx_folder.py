"""Folders whose weights are in ONNX graphs of Optimum: read like any other, or refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic
from torch import nn

from seqserve.task_record import Task
from seqserve_export.errors import CheckpointError, UnsupportedError, VerificationError
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
ADVICE = r"`optimum-cli export onnx --model ID --no-post-process DIR`"


def _read(folder: Path) -> Source:
    return read_source_folder(folder, is_pickle_allowed=False)


def _make_encoder(folder: Path, name: str = "bert", task: Task = Task.CLASSIFY) -> Path:
    make_tiny_encoder_folder(folder, find_variant(name), task)
    replace_encoder_weights(folder, MODEL_CLASSES[task])
    return folder


def _check_same_weights(expected: nn.Module, actual: nn.Module) -> None:
    """Two models have the same tensors, bit for bit, and share the same ones."""
    theirs, ours = dict(expected.named_parameters()), dict(actual.named_parameters())
    assert list(theirs) == list(ours)
    for name, weight in theirs.items():
        assert torch.equal(weight, ours[name]), name


@pytest.fixture(scope="module")
def bart_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two graphs of a BART; not to be changed."""
    folder = make_hugging_face_folder("bart", tmp_path_factory.mktemp("bart") / "bart")
    replace_encoder_decoder_weights(folder)
    return folder


@pytest.fixture
def bart_copy(bart_folder: Path, tmp_path: Path) -> Path:
    """Two graphs of a BART, to be changed."""
    return Path(shutil.copytree(bart_folder, tmp_path / "bart"))


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
    folder = _make_encoder(tmp_path / name, name, task)
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


def test_merged_decoder_is_read(bart_folder: Path, bart_copy: Path) -> None:
    """Weights outside of two branches, under new names, are found by what the nodes are called."""
    merge_decoders(bart_copy)
    expected, source = _read(bart_folder), _read(bart_copy)
    assert isinstance(source, GenerationSource)
    assert compare_with_transformers(source).max_abs_difference < 1e-5
    _check_same_weights(expected.model, source.model)


def test_sub_folder_and_external_data_are_read(tmp_path: Path) -> None:
    """Graphs may lie in onnx/, with their numbers beside them."""
    folder = _make_encoder(tmp_path)
    expected = _read(folder)
    use_external_data(folder / "model.onnx")
    (folder / "onnx").mkdir()
    for name in ("model.onnx", "model.onnx_data"):
        (folder / name).rename(folder / "onnx" / name)
    size = sum(path.stat().st_size for path in (folder / "onnx").iterdir())
    assert measure_weights(folder) == size
    _check_same_weights(expected.model, _read(folder).model)


def test_graphs_of_another_folder_do_not_hide(bart_folder: Path, bart_copy: Path) -> None:
    """The first place with all that is needed counts."""
    (bart_copy / "onnx").mkdir()
    for path in bart_copy.glob("*.onnx"):
        path.rename(bart_copy / "onnx" / path.name)
    (bart_copy / "decoder_model.onnx").write_bytes(b"left over")
    _check_same_weights(_read(bart_folder).model, _read(bart_copy).model)
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
    path = _make_encoder(tmp_path) / "model.onnx"
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
    path = _make_encoder(tmp_path) / "model.onnx"
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
    source = _read(_make_encoder(tmp_path, "roberta", Task.RERANK))
    assert source.notes == (
        "the graph takes no types of tokens: what they do to pairs was not compared",
    )


def test_unnamed_head_is_refused(tmp_path: Path) -> None:
    """Logits of a class that the configuration does not name cannot be understood."""
    folder = _make_encoder(tmp_path)
    _edit(folder / "config.json", architectures=["BertModel"])
    with pytest.raises(CheckpointError, match=r"makes logits, but .* BertModel in config.json"):
        _read(folder)


def test_other_outputs_are_refused(tmp_path: Path) -> None:
    """A graph that pools by itself is not an encoder or a head."""
    path = _make_encoder(tmp_path) / "model.onnx"
    change_graph(path, lambda model: _rename_output(model, "sentence_embedding"))
    message = r"has the outputs sentence_embedding; supported are .* --library-name transformers"
    with pytest.raises(UnsupportedError, match=message):
        _read(tmp_path)


def test_quantized_graph_is_refused(tmp_path: Path) -> None:
    """Weights in 8 bits are not the original ones."""
    path = _make_encoder(tmp_path) / "model.onnx"
    quantize_dynamic(onnx.load(path), path)
    message = rf"is quantized \(DynamicQuantizeLinear, MatMulInteger\), .*{ADVICE}.* choose int8"
    with pytest.raises(UnsupportedError, match=message):
        _read(tmp_path)


def test_fused_graph_is_refused(tmp_path: Path) -> None:
    """Operators of onnxruntime hold several weights in one."""

    def fuse(model: onnx.ModelProto) -> None:
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
        node = next(n for n in model.graph.node if n.op_type == "LayerNormalization")
        node.op_type, node.domain = "SkipLayerNormalization", "com.microsoft"

    change_graph(_make_encoder(tmp_path) / "model.onnx", fuse)
    message = rf"optimized by onnxruntime \(SkipLayerNormalization\), .* without --opt.*{ADVICE}"
    with pytest.raises(UnsupportedError, match=message):
        _read(tmp_path)


def test_half_precision_is_refused(tmp_path: Path) -> None:
    """A graph in fp16 cannot show that our model in fp32 is the same."""

    def halve(model: onnx.ModelProto) -> None:
        for weight in model.graph.initializer:
            halves = onnx.numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(onnx.numpy_helper.from_array(halves, weight.name))

    change_graph(_make_encoder(tmp_path) / "model.onnx", halve)
    with pytest.raises(UnsupportedError, match=r"half precision \(FLOAT16\), .* re-export in fp32"):
        _read(tmp_path)


@pytest.mark.parametrize("prefix", ["onnx::MatMul_", "val_"])
def test_graph_without_names_is_refused(prefix: str, tmp_path: Path) -> None:
    """Without the names of torch it cannot be told which weight is which, in any of its forms."""

    def forget(model: onnx.ModelProto) -> None:
        for index, node in enumerate(model.graph.node):
            node.name = f"node_{node.op_type}_{index}"
            node.input[:] = [name.replace("onnx::MatMul_", prefix) for name in node.input]
        for weight in model.graph.initializer:
            weight.name = weight.name.replace("onnx::MatMul_", prefix)

    change_graph(_make_encoder(tmp_path) / "model.onnx", forget)
    message = rf"what 12 of its weights are for, such as {prefix}\d+ of the node .*{ADVICE}"
    with pytest.raises(UnsupportedError, match=message):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("renamed", "message"),
    [
        (
            {"encoder_model.onnx": "model.onnx"},
            r"holds decoder_model.onnx, model.onnx, but not encoder_model.onnx",
        ),
        (
            {"decoder_model.onnx": "decoder_with_past_model.onnx"},
            r"holds decoder_with_past_model.onnx, encoder_model.onnx, but not decoder_model.onnx or"
            r" decoder_model_merged.onnx, .*re-export with",
        ),
    ],
    ids=["encoder", "decoder"],
)
def test_missing_graphs_are_named(renamed: dict[str, str], message: str, bart_copy: Path) -> None:
    """What is there is listed, and what is needed, too; a continuing decoder is not enough."""
    for name, other in renamed.items():
        (bart_copy / name).rename(bart_copy / other)
    with pytest.raises(CheckpointError, match=message):
        _read(bart_copy)


def test_unusual_file_of_an_encoder_is_named(tmp_path: Path) -> None:
    """A folder with other graphs only is not searched for the best of them."""
    folder = _make_encoder(tmp_path)
    (folder / "model.onnx").rename(folder / "model_quantized.onnx")
    with pytest.raises(CheckpointError, match=r"holds model_quantized.onnx, but not model.onnx"):
        _read(folder)


def test_graphs_of_two_models_are_refused(bart_copy: Path) -> None:
    """Encoder and decoder that hold one tensor with other numbers do not belong together."""
    change_graph(
        bart_copy / "encoder_model.onnx",
        lambda model: _rename_initializer(model, "embed_tokens.weight", "model.shared.weight", 2.0),
    )
    with pytest.raises(CheckpointError, match=r"not of one model: model.shared.weight differs"):
        _read(bart_copy)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    """Too few numbers, absent ones and such from elsewhere, and bytes that are no graph."""
    path = _make_encoder(tmp_path) / "model.onnx"
    use_external_data(path)
    data = (tmp_path / "model.onnx_data").read_bytes()
    (tmp_path / "model.onnx_data").write_bytes(data[:-2000])
    with pytest.raises(CheckpointError, match=r"weights of .* cannot be read"):
        _read(tmp_path)
    (tmp_path / "model.onnx_data").unlink()
    with pytest.raises(CheckpointError, match=r"weights of .* cannot be read: .*model.onnx_data"):
        _read(tmp_path)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../weights"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"in '\.\./weights', which is not a file beside it"):
        _read(tmp_path)
    path.write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"model.onnx is not an ONNX graph"):
        _read(tmp_path)


def test_unknown_inputs_are_refused(tmp_path: Path) -> None:
    """A graph that needs what the family does not have is another model."""
    path = _make_encoder(tmp_path) / "model.onnx"
    extra = onnx.helper.make_tensor_value_info("position_ids", onnx.TensorProto.INT64, [1])
    change_graph(path, lambda model: model.graph.input.append(extra))
    with pytest.raises(CheckpointError, match=r"needs the inputs position_ids, which the models"):
        _read(tmp_path)


def test_difference_from_the_graph_is_refused(tmp_path: Path) -> None:
    """A configuration that says something else than the graph does is found out."""
    folder = _make_encoder(tmp_path)
    _edit(folder / "config.json", hidden_act="relu")
    with pytest.raises(VerificationError, match=r"ONNX graph and our model.* source 0 of .*differ"):
        _read(folder)


def test_decoder_without_logits_is_refused(bart_copy: Path) -> None:
    """A decoder exported without its head does not generate."""
    path = bart_copy / "decoder_model.onnx"
    change_graph(path, lambda model: _rename_output(model, "last_hidden_state"))
    message = r"decoder_model.onnx has the outputs last_hidden_state, but not logits"
    with pytest.raises(CheckpointError, match=message):
        _read(bart_copy)


def _edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def _rename_output(model: onnx.ModelProto, name: str) -> None:
    (output,) = model.graph.output
    node = next(node for node in model.graph.node if output.name in node.output)
    node.output[0] = output.name = name


def _rename_initializer(model: onnx.ModelProto, name: str, new_name: str, factor: float) -> None:
    """Renames and changes an initializer."""
    weight = next(weight for weight in model.graph.initializer if weight.name == name)
    scaled = onnx.numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(onnx.numpy_helper.from_array(scaled, new_name))
    for node in model.graph.node:
        node.input[:] = [new_name if used == name else used for used in node.input]
