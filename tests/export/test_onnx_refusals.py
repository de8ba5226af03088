"""Folders of ONNX graphs that are refused, by name and with what to do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import quantize_dynamic

from seqserve_export.errors import CheckpointError, UnsupportedError, VerificationError
from seqserve_export.source import Source
from seqserve_export.source_folder import read_source_folder
from tiny_onnx_folders import change_graph, make_onnx_encoder, use_external_data

ADVICE = r"`optimum-cli export onnx --model ID --no-post-process DIR`"


def _read(folder: Path) -> Source:
    return read_source_folder(folder, is_pickle_allowed=False)


def test_unnamed_head_is_refused(tmp_path: Path) -> None:
    """Logits of a class that the configuration does not name cannot be understood."""
    folder = make_onnx_encoder(tmp_path)
    _edit(folder / "config.json", architectures=["BertModel"])
    with pytest.raises(CheckpointError, match=r"makes logits, but .* BertModel in config.json"):
        _read(folder)


def test_other_outputs_are_refused(tmp_path: Path) -> None:
    """A graph that pools by itself is not an encoder or a head."""
    path = make_onnx_encoder(tmp_path) / "model.onnx"
    change_graph(path, lambda model: _rename_output(model, "sentence_embedding"))
    message = r"has the outputs sentence_embedding; supported are .* --library-name transformers"
    with pytest.raises(UnsupportedError, match=message):
        _read(tmp_path)


def test_quantized_graph_is_refused(tmp_path: Path) -> None:
    """Weights in 8 bits are not the original ones."""
    path = make_onnx_encoder(tmp_path) / "model.onnx"
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

    change_graph(make_onnx_encoder(tmp_path) / "model.onnx", fuse)
    message = rf"optimized by onnxruntime \(SkipLayerNormalization\), .* without --opt.*{ADVICE}"
    with pytest.raises(UnsupportedError, match=message):
        _read(tmp_path)


def test_half_precision_is_refused(tmp_path: Path) -> None:
    """A graph in fp16 cannot show that our model in fp32 is the same."""

    def halve(model: onnx.ModelProto) -> None:
        for weight in model.graph.initializer:
            halves = onnx.numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(onnx.numpy_helper.from_array(halves, weight.name))

    change_graph(make_onnx_encoder(tmp_path) / "model.onnx", halve)
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

    change_graph(make_onnx_encoder(tmp_path) / "model.onnx", forget)
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
    folder = make_onnx_encoder(tmp_path)
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
    path = make_onnx_encoder(tmp_path) / "model.onnx"
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
    path = make_onnx_encoder(tmp_path) / "model.onnx"
    extra = onnx.helper.make_tensor_value_info("position_ids", onnx.TensorProto.INT64, [1])
    change_graph(path, lambda model: model.graph.input.append(extra))
    with pytest.raises(CheckpointError, match=r"needs the inputs position_ids, which the models"):
        _read(tmp_path)


def test_difference_from_the_graph_is_refused(tmp_path: Path) -> None:
    """A configuration that says something else than the graph does is found out."""
    folder = make_onnx_encoder(tmp_path)
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
