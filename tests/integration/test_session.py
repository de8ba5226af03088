"""onnxruntime sessions as the server opens them."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seqserve.device import Device
from seqserve.session import open_session

SIZE = 256
NUM_ROWS = 64


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Two products of matrices with denormal numbers between them."""
    rng = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(rng.normal(size=(SIZE, SIZE)).astype(np.float32) * scale, name)
        for name, scale in (("down", np.float32(1e-21)), ("up", np.float32(1e30)))
    ]
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", ["input", "down"], ["tiny"]),
                helper.make_node("MatMul", ["tiny", "up"], ["output"]),
            ],
            "denormal",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", SIZE])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", SIZE])],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    path = tmp_path / "denormal.onnx"
    onnx.save(model, path)
    return path


def in_thread(work: Callable[[], object]) -> object:
    """What a call returns in a thread of its own."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_opening_thread_does_not_change_a_bit(graph: Path, num_threads: int) -> None:
    """Denormal activations are computed alike wherever a session is opened and run."""
    rng = np.random.default_rng(2)
    rows = (rng.normal(size=(NUM_ROWS, SIZE)) * 1e-19).astype(np.float32)

    def run(session: onnxruntime.InferenceSession) -> NDArray[np.float32]:
        (output,) = session.run(["output"], {"input": rows})
        return np.asarray(output)

    here = open_session(graph, num_threads=num_threads)
    there = in_thread(lambda: open_session(graph, num_threads=num_threads))
    outputs = [run(here), run(there)]
    outputs += [in_thread(lambda session=session: run(session)) for session in (here, there)]  # type: ignore[misc]
    assert np.count_nonzero(outputs[0]) > 0.9 * outputs[0].size
    for output in outputs[1:]:
        assert np.array_equal(output, outputs[0])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_settings_of_the_processor_are_for_it_alone(
    graph: Path, monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    """Spinning, arena, fusions and attention kernel are chosen by what was measured on it."""
    opened: list[dict[str, Any]] = []

    class FakeSession:
        def __init__(self, path: str, *, sess_options: Any, **settings: Any) -> None:
            variables = {"flash": "ORT_GQA_DISABLE_FLASH_ATTENTION" not in os.environ}
            opened.append({"options": sess_options, **settings, **variables})

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.delenv("ORT_GQA_DISABLE_FLASH_ATTENTION", raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    open_session(graph, num_threads=1, is_decoding=True, device=device)
    (one,) = opened
    is_on_cpu = device == "cpu"
    options = one["options"]
    assert options.enable_cpu_mem_arena is not is_on_cpu
    assert bool(one["disabled_optimizers"]) is is_on_cpu
    assert one["flash"] is not is_on_cpu
    first = one["providers"][0]
    assert (first if is_on_cpu else first[0]) == (
        "CPUExecutionProvider" if is_on_cpu else "CUDAExecutionProvider"
    )
    entry = "session.intra_op.spin_duration_us"
    if is_on_cpu:
        assert options.get_session_config_entry(entry) == "50"
    else:
        with pytest.raises(RuntimeError, match=entry):
            options.get_session_config_entry(entry)
