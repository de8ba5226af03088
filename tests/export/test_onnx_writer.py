"""Graph files are small, the same every time, and tell nothing of the machine that wrote them."""

from pathlib import Path

import onnx
import onnxruntime
import pytest

from seqserve_export import onnx_writer
from seqserve_export.graphs import DecodeGraph, EncodeGraph
from seqserve_export.source import GenerationSource
from seqserve_export.source_folder import read_source_folder
from seqserve_export.transformer import Transformer
from seqserve_export.weight_file import WeightFile
from tiny_checkpoint import make_tiny_model


def read_model(folder: Path) -> Transformer:
    """The model of a checkpoint folder."""
    source = read_source_folder(folder, is_pickle_allowed=False)
    assert isinstance(source, GenerationSource)
    return source.model


def write_both(model: Transformer, folder: Path) -> None:
    """Writes both graphs with one file of weights."""
    folder.mkdir()
    weights = WeightFile(folder)
    onnx_writer.write_graph(EncodeGraph(model), folder, "encode", weights)
    onnx_writer.write_graph(DecodeGraph(model), folder, "decode", weights)


def test_graphs_share_one_file_of_weights(tmp_path: Path) -> None:
    """What both use is stored once, at a page of its own, and small tensors stay in the graphs."""
    sizes = {"source_vocabulary_size": 700, "target_vocabulary_size": 700}
    model = make_tiny_model(3, has_shared_embedding=True, **sizes)
    folder = tmp_path / "model"
    write_both(model, folder)
    assert {file.name for file in folder.iterdir()} == {
        "encode.onnx",
        "decode.onnx",
        "weights.data",
    }
    tensors = [
        tensor
        for name in ("encode", "decode")
        for tensor in onnx.load(folder / f"{name}.onnx", load_external_data=False).graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in tensors]
    assert {place["location"] for place in places} == {"weights.data"}
    assert all(int(place["offset"]) % 4096 == 0 for place in places)
    table_bytes = 700 * 32 * 4
    tables = {place["offset"] for place in places if int(place["length"]) == table_bytes}
    assert len(tables) == 1
    stored = {place["offset"]: int(place["length"]) for place in places}
    num_stored_bytes = (folder / "weights.data").stat().st_size
    assert sum(stored.values()) <= num_stored_bytes <= sum(stored.values()) + 4096 * len(stored)
    session = onnxruntime.InferenceSession(folder / "encode.onnx")
    assert session.get_outputs()[0].name == "last_hidden_state"


def test_graphs_are_deterministic(tiny_checkpoint: Path, tiny_store: Path, tmp_path: Path) -> None:
    """Exporting again gives the same bytes."""
    folder = tmp_path / "again"
    write_both(read_model(tiny_checkpoint), folder)
    for file in folder.iterdir():
        assert file.read_bytes() == (tiny_store / "tiny" / "1" / file.name).read_bytes()


@pytest.mark.parametrize("name", ["encode", "decode"])
def test_graphs_hold_no_paths(name: str, tiny_store: Path) -> None:
    """A graph has the versions asked for, and no traces of source files."""
    path = tiny_store / "tiny" / "1" / f"{name}.onnx"
    proto = onnx.load(path)
    assert proto.ir_version == onnx_writer.IR_VERSION
    assert {opset.domain: opset.version for opset in proto.opset_import} == {
        "": onnx_writer.OPSET_VERSION,
        "com.microsoft": 1,
    }
    assert b".py" not in path.read_bytes()
