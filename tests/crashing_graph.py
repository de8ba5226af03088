"""A graph that crashes onnxruntime 1.31.1 when it is opened: functions that call functions.

Depends on onnx, whose checker would refuse it.
"""

from pathlib import Path

import onnx

from served_folders import seal

_DEPTH = 3000


def plant_crash(folder: Path) -> None:
    """Puts a graph into a model that crashes onnxruntime: functions that call functions."""
    domain = "com.example"
    functions = [
        onnx.helper.make_function(
            domain,
            f"f{index}",
            ["x"],
            ["y"],
            [
                onnx.helper.make_node("Identity", ["x"], ["y"])
                if index == _DEPTH - 1
                else onnx.helper.make_node(f"f{index + 1}", ["x"], ["y"], domain=domain)
            ],
            [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(domain, 1)],
        )
        for index in range(_DEPTH)
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("f0", ["a"], ["b"], domain=domain)], "g", values[:1], values[1:]
    )
    model = onnx.helper.make_model(
        graph,
        functions=functions,
        opset_imports=[onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(domain, 1)],
        ir_version=9,
    )
    (folder / "encode.onnx").write_bytes(model.SerializeToString())
    seal(folder)
