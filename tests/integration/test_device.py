"""What is refused when models are to be served on a device; the messages say what to do.

The processor stands in for CUDA: its provider is named, but not used.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import structlog
import torch
from onnx import numpy_helper

from seqserve import device, device_check, generation_graphs, lane_engine, model_opening
from seqserve.config import ServerConfig
from seqserve.config_source import read_config
from seqserve.device_check import check_results
from seqserve.device_engine import DeviceEngine
from seqserve.errors import ConfigurationError, ModelFolderError
from seqserve.manifest import Manifest, read_manifest
from seqserve.metrics import Metrics
from seqserve.model_opening import open_model
from seqserve.registry import Registry
from seqserve.session import open_session
from seqserve_export.exporter import export_model
from tiny_checkpoint import make_tiny_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in fp16."""
    torch.set_num_threads(1)
    source = make_tiny_checkpoint(tmp_path_factory.mktemp("source") / "tiny", 8)
    store = tmp_path_factory.mktemp("store")
    return export_model(source, store, name="half", dtype="fp16").folder


def on_processor(*args: Any, **settings: Any) -> onnxruntime.InferenceSession:
    """Opens a graph on the processor, wherever it should be."""
    return open_session(*args, **{**settings, "device": "cpu"})


@pytest.fixture
def _cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Onnxruntime says that it has CUDA."""
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)


def test_device_is_a_setting() -> None:
    """The processor is the default; a variable chooses CUDA; other names are refused."""
    assert ServerConfig().device == "cpu"
    assert read_config({}, None, {"SEQSERVE_DEVICE": "cuda"}).device == "cuda"
    with pytest.raises(ConfigurationError, match="--device: Input should be 'cpu' or 'cuda'"):
        read_config({"device": "tpu"}, None, {})


def test_several_lanes_on_cuda_are_refused() -> None:
    """They would wait for each other."""
    with pytest.raises(ConfigurationError, match=r"lanes \(2\) must be 1 with device cuda"):
        read_config({"device": "cuda", "lanes": 2}, None, {})
    assert read_config({"device": "cuda", "lanes": 1}, None, {}).lanes == 1


def test_absent_provider_is_refused(folder: Path) -> None:
    """Where onnxruntime was not built for CUDA, the message names the package that is."""
    config = ServerConfig(models=folder.parents[1], device="cuda")
    with pytest.raises(ConfigurationError) as caught:
        Registry.open(config, Metrics())
    assert "has no CUDAExecutionProvider; it has: " in str(caught.value)
    assert "Install seqserve[gpu]" in str(caught.value)


def test_provider_that_does_not_start_is_refused(folder: Path) -> None:
    """Onnxruntime would compute on the processor and say nothing."""
    session = open_session(folder / "encode.onnx", num_threads=1)
    with pytest.raises(ConfigurationError, match="CUDAExecutionProvider could not be started"):
        device.check_session(session, "cuda")
    device.check_session(session, "cpu")


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_other_number_formats_are_refused(folder: Path, dtype: str) -> None:
    """The message names the model, its format, and the option of export."""
    manifest = read_manifest(folder).model_copy(update={"dtype": dtype})
    message = rf"model half/1 is {dtype}, .* export it with --dtype fp16"
    with pytest.raises(ConfigurationError, match=message):
        device.check_format(manifest, "cuda")
    device.check_format(manifest, "cpu")


def test_model_of_an_older_export_is_refused(folder: Path) -> None:
    """Without the graphs that devices need there is nothing to serve with."""
    manifest = read_manifest(folder)
    assert manifest.generation is not None
    generation = manifest.generation.model_copy(
        update={"move_rows_graph": None, "best_tokens_graph": None}
    )
    manifest = manifest.model_copy(update={"generation": generation})
    with pytest.raises(ModelFolderError, match=r"model half/1 lacks the graphs .* export it again"):
        device.check_format(manifest, "cuda")


@pytest.mark.usefixtures("_cuda")
def test_device_has_an_engine_and_a_budget_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lane, caches of 2 GiB shared by the models, and results compared before."""
    compared = []
    monkeypatch.setattr(
        model_opening, "check_results", lambda folder, _, **settings: compared.append(settings)
    )
    monkeypatch.setattr(generation_graphs, "open_session", on_processor)
    made: list[Any] = []

    class Engine(DeviceEngine):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings, device_type="cpu")
            made.append(self)

    monkeypatch.setattr(lane_engine, "DeviceEngine", Engine)
    config = ServerConfig(models=folder.parents[1], device="cuda", threads=2)
    with structlog.testing.capture_logs() as logs:
        model = open_model(folder, config, Metrics(), num_models=2)
    assert len(made) == len(model.lanes.workers) == 1
    assert model.budget is not None
    assert model.budget.max_bytes == 2**30
    assert compared == [{"num_threads": 2, "device": "cuda"}]
    # Export looked at the processor alone.
    assert model.manifest.is_batch_invariant
    assert not model.is_batch_invariant
    assert logs[0]["event"] == "last bits of results may depend on the batch, on cuda"


def test_results_that_agree_pass(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every graph is run on both, and the processor agrees with itself."""
    opened = []

    def open_noted(path: Path, **settings: Any) -> onnxruntime.InferenceSession:
        opened.append((path.name, settings["device"]))
        return on_processor(path, **settings)

    monkeypatch.setattr(device_check, "open_session", open_noted)
    check_results(folder, read_manifest(folder), num_threads=1, device="cuda")
    names = ("encode.onnx", "decode.onnx", "move_rows.onnx", "best_tokens.onnx")
    assert opened == [(name, where) for name in names for where in ("cpu", "cuda")]


def test_encoders_in_fp32_are_compared_and_warned_of(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are served on CUDA, but their attention by the processor, which the log says."""
    monkeypatch.setattr(device_check, "open_session", on_processor)
    folder = store / "sentence" / "1"
    manifest = read_manifest(folder)
    check_results(folder, manifest, num_threads=1, device="cuda")
    with structlog.testing.capture_logs() as logs:
        device.check_format(manifest, "cuda")
    (line,) = logs
    assert line["log_level"] == "warning"
    assert "computed by the processor" in line["event"]
    with pytest.raises(ConfigurationError, match="model sentence/1 is int8"):
        device.check_format(manifest.model_copy(update={"dtype": "int8"}), "cuda")


def look_back_only(graph: onnx.GraphProto) -> None:
    """What a kernel would do that ignores ``causal``."""
    for node in graph.node:
        kept = [attribute for attribute in node.attribute if attribute.name != "causal"]
        del node.attribute[:]
        node.attribute.extend(kept)


def find_last(graph: onnx.GraphProto) -> None:
    """What a kernel may do that finds another one of several equal tokens."""
    for node in graph.node:
        if node.op_type == "ReduceMin":
            node.op_type = "ReduceMax"


def move_back(graph: onnx.GraphProto) -> None:
    """Rows that come from where they should go."""
    for node in graph.node:
        if node.op_type == "Gather":
            node.input[1] = "target_rows"


def change_biases(graph: onnx.GraphProto) -> None:
    """Anything else that is wrong."""
    for initializer in graph.initializer:
        if initializer.name.endswith("feed_forward.down.bias"):
            values = numpy_helper.to_array(initializer).copy()
            values[::2] += 2
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))


@pytest.mark.parametrize(
    ("name", "change", "output"),
    [
        ("encode", look_back_only, "last_hidden_state"),
        ("decode", change_biases, "logits"),
        ("move_rows", move_back, r"present\.0\.key"),
        ("best_tokens", find_last, "best_tokens"),
    ],
)
def test_results_that_differ_are_refused(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Callable[[onnx.GraphProto], None],
    output: str,
) -> None:
    """A device that computes something else is not served from."""
    model = onnx.load(folder / f"{name}.onnx")
    change(model.graph)
    onnx.save(model, tmp_path / f"{name}.onnx")

    def open_changed(path: Path, **settings: Any) -> onnxruntime.InferenceSession:
        is_changed = settings["device"] == "cuda" and path.name == f"{name}.onnx"
        return on_processor(tmp_path / path.name if is_changed else path, **settings)

    monkeypatch.setattr(device_check, "open_session", open_changed)
    manifest: Manifest = read_manifest(folder)
    message = rf"{name}\.onnx: on cuda {output} differs from .* set device to cpu"
    with pytest.raises(ConfigurationError, match=message):
        check_results(folder, manifest, num_threads=1, device="cuda")
