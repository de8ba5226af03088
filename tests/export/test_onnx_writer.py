"""Graph files are small, the same every time, and tell nothing of the machine that wrote them."""

from pathlib import Path

import onnx
import onnxruntime
import pytest

from seqserve_export import onnx_writer
from seqserve_export.graphs import EncodeGraph
from seqserve_export.source import GenerationSource
from seqserve_export.source_folder import read_source_folder


def test_large_weights_go_beside_the_graph(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the threshold, weights are in one file named after the graph, each stored once."""
    monkeypatch.setattr(onnx_writer, "MAX_INLINE_BYTES", 1 << 14)
    source = read_source_folder(tiny_checkpoint, is_pickle_allowed=False)
    assert isinstance(source, GenerationSource)
    path = onnx_writer.write_graph(EncodeGraph(source.model), tmp_path, "encode")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["encode.onnx", "encode.onnx.data"]
    num_stored_bytes = (tmp_path / "encode.onnx.data").stat().st_size
    assert num_stored_bytes < 1.1 * 4 * sum(
        weight.numel()
        for name, weight in source.model.named_parameters()
        if name.startswith(("source_embedding", "encoder")) or "cross_attention" in name
    )
    assert onnxruntime.InferenceSession(path).get_outputs()[0].name == "last_hidden_state"


def test_graphs_are_deterministic(tiny_checkpoint: Path, tiny_store: Path, tmp_path: Path) -> None:
    """Exporting again gives the same bytes."""
    source = read_source_folder(tiny_checkpoint, is_pickle_allowed=False)
    assert isinstance(source, GenerationSource)
    path = onnx_writer.write_graph(EncodeGraph(source.model), tmp_path, "encode")
    assert path.read_bytes() == (tiny_store / "tiny" / "1" / "encode.onnx").read_bytes()


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
