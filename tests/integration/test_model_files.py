"""Model files that are damaged, or try to reach what is none of theirs: refused in one line."""

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from tokenizers import Tokenizer

from seqserve.config import ServerConfig
from seqserve.errors import ModelFolderError
from seqserve.graph_file import external_locations
from seqserve.metrics import Metrics
from seqserve.model_opening import open_model
from served_folders import copy_version, seal

CONFIG = ServerConfig(threads=1, lanes=1)


@pytest.fixture
def folder(store: Path, tmp_path: Path) -> Path:
    """A model to spoil."""
    return copy_version(store / "tiny" / "1", tmp_path / "store" / "tiny" / "1")


def refusal(folder: Path) -> str:
    """The message with which a folder is refused."""
    with pytest.raises(ModelFolderError) as caught:
        open_model(folder, CONFIG, Metrics(), is_rehearsed=True)
    message = str(caught.value)
    assert "\n" not in message
    return message


def move_weights(graph: Path, location: str) -> None:
    """Has the tensors of a graph that lie in another file lie at a location."""
    model = onnx.load(graph, load_external_data=False)
    entries = [
        entry
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    assert entries
    for entry in entries:
        entry.value = location
    graph.write_bytes(model.SerializeToString())


def test_whole_model_is_opened(folder: Path) -> None:
    """And knows the one file that its weights are in."""
    assert open_model(folder, CONFIG, Metrics(), is_rehearsed=True).label == "tiny/1"
    assert external_locations(folder / "decode.onnx") == {"weights.data"}


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda data: data[: len(data) // 2], "is no ONNX file, or damaged: the field at byte "),
        (lambda data: random.Random(1).randbytes(len(data)), "is no ONNX file, or damaged: "),
        (lambda data: b"", "is empty; export the model again"),
    ],
    ids=["truncated", "random", "empty"],
)
def test_damaged_graph_is_refused(
    folder: Path, spoil: Callable[[bytes], bytes], problem: str
) -> None:
    """Even if the manifest lists it as it is."""
    graph = folder / "decode.onnx"
    graph.write_bytes(spoil(graph.read_bytes()))
    assert "decode.onnx is not the file of the manifest" in refusal(folder)
    seal(folder)
    assert refusal(folder).startswith(f"{graph} {problem}")


def test_absent_graph_is_refused(folder: Path) -> None:
    """By the name that the manifest lists."""
    (folder / "decode.onnx").unlink()
    assert refusal(folder) == (
        f"{folder / 'decode.onnx'} is listed in the manifest but does not exist"
    )


@pytest.mark.parametrize("kind", ["parent", "absolute", "unlisted"])
def test_weights_elsewhere_are_refused(folder: Path, kind: str) -> None:
    """No graph reads what the manifest does not list, wherever it lies."""
    outside = folder.parent / "weights.data"
    shutil.copy(folder / "weights.data", outside)
    shutil.copy(folder / "weights.data", folder / "other.data")
    location = {"parent": "../weights.data", "absolute": str(outside), "unlisted": "other.data"}
    move_weights(folder / "decode.onnx", location[kind])
    seal(folder)
    assert refusal(folder) == (
        f"{folder / 'decode.onnx'} keeps tensors in {location[kind]!r}, which is no file of the "
        "manifest: external data must lie beside the graph, listed in seqserve.json; export the "
        "model again"
    )


def test_weights_inside_of_functions_and_subgraphs_are_found(tmp_path: Path) -> None:
    """Tensors are everywhere in a model: constants of nodes, branches, functions."""

    def tensor(location: str) -> onnx.TensorProto:
        made = onnx.TensorProto(
            name=location, data_type=onnx.TensorProto.FLOAT, data_location=onnx.TensorProto.EXTERNAL
        )
        made.external_data.add(key="location", value=location)
        made.external_data.add(key="length", value="4")
        return made

    def constant(location: str) -> onnx.NodeProto:
        return onnx.helper.make_node("Constant", [], [location], value=tensor(location))

    branch = onnx.helper.make_graph([constant("branch")], "g", [], [])
    branches = onnx.helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch)
    sparse = onnx.SparseTensorProto(values=tensor("values"), indices=tensor("indices"))
    graph = onnx.helper.make_graph([constant("node"), branches], "g", [], [], [tensor("own")])
    graph.sparse_initializer.append(sparse)
    function = onnx.helper.make_function("d", "f", [], [], [constant("function")], [])
    model = onnx.helper.make_model(graph, functions=[function])
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert external_locations(path) == {*("own", "node", "branch", "values", "indices", "function")}


def test_file_that_is_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    """A link within it is how Kubernetes mounts files, and is followed."""
    weights = folder / "weights.data"
    (folder / "..data").mkdir()
    weights.rename(folder / "..data" / "weights.data")
    weights.symlink_to("..data/weights.data")
    tokenizer = folder / "tokenizer.json"
    (folder / "..data" / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    tokenizer.unlink()
    tokenizer.symlink_to("..data/tokenizer.json")
    assert open_model(folder, CONFIG, Metrics()).label == "tiny/1"
    outside = folder.parent / "weights.data"
    shutil.copy(weights, outside)
    weights.unlink()
    weights.symlink_to("../weights.data")
    assert refusal(folder) == (
        f"{weights} is a link to {outside.resolve()}, outside of the model's folder; put the file "
        "itself there"
    )


def test_folder_that_is_a_link_is_served(folder: Path, tmp_path: Path) -> None:
    """A version may lie anywhere as a whole."""
    place = tmp_path / "other" / "tiny"
    place.mkdir(parents=True)
    os.symlink(folder, place / "1")
    assert open_model(place / "1", CONFIG, Metrics()).label == "tiny/1"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda model: model.graph.node.add(op_type="Rot13", domain="com.example"), "com.example"),
        (lambda model: setattr(model.opset_import[0], "version", 999), "999"),
        (lambda model: setattr(model, "ir_version", 99), "99"),
    ],
    ids=["operator", "opset", "format"],
)
def test_graph_that_onnxruntime_does_not_know_is_refused(
    folder: Path, change: Callable[[onnx.ModelProto], object], named: str
) -> None:
    """With what it does not know."""
    graph = folder / "decode.onnx"
    model = onnx.load(graph, load_external_data=False)
    change(model)
    if named == "com.example":
        model.graph.node[-1].output.append("unused")
        model.opset_import.add(domain="com.example", version=1)
    graph.write_bytes(model.SerializeToString())
    seal(folder)
    message = refusal(folder)
    assert message.startswith(f"{graph} is rejected by onnxruntime: ")
    assert named in message


def test_model_that_computes_no_numbers_is_refused(folder: Path) -> None:
    """A version whose every answer would be an error must not replace a good one."""
    model = onnx.load(folder / "encode.onnx", load_external_data=False)
    places = {entry.key: entry.value for entry in model.graph.initializer[0].external_data}
    weights = folder / "weights.data"
    data = bytearray(weights.read_bytes())
    data[:] = b"\xff" * len(data)  # NaN in every format of floating point
    assert places["location"] == "weights.data"
    weights.write_bytes(bytes(data))
    seal(folder)
    assert refusal(folder) == (
        f"{folder} cannot be computed: the model returned logits that are not finite"
    )


def test_weights_that_end_too_soon_are_refused(folder: Path) -> None:
    """Even if the manifest lists them as they are."""
    weights = folder / "weights.data"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "weights.data is not the file of the manifest" in refusal(folder)
    seal(folder)
    assert "encode.onnx is rejected by onnxruntime: " in refusal(folder)


def test_tokenizer_that_knows_more_than_the_model_is_refused(folder: Path) -> None:
    """Its last tokens would read beyond the embeddings."""
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens(["one too many", "two too many"])
    tokenizer.save(str(path))
    seal(folder)
    assert re.fullmatch(
        rf"{folder}: the tokenizer has \d+ entries, but the model embeds only \d+", refusal(folder)
    )
