"""onnxruntime sessions as the server opens them."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

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
