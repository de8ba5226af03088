"""One file with the weights of all graphs of a model.

A tensor that several graphs use, such as a shared embedding, is stored once, and onnxruntime maps
the file into memory once. The order of the graphs alone decides where a tensor lies, so that the
same model gives the same bytes.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

WEIGHTS_FILE = "weights.data"

MIN_BYTES = 1024
"""Smaller tensors stay inside the graph."""
_ALIGNMENT = 4096
"""Offsets at which a tensor can be mapped: pages."""


class WeightFile:
    """The file while it grows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._size = 0
        self._places: dict[tuple[bytes, str], tuple[int, int]] = {}

    def take(self, model: onnx_ir.Model) -> None:
        """Moves the large tensors of a graph into the file; the graph then refers to it.

        One tensor at a time is in memory besides the model's own.
        """
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < MIN_BYTES:
                continue
            offset, length = self._store(tensor.numpy())
            value.const_value = onnx_ir.ExternalTensor(
                WEIGHTS_FILE,
                offset,
                length,
                tensor.dtype,
                shape=onnx_ir.Shape(tensor.numpy().shape),
                name=tensor.name or value.name or "",
                base_dir=self._folder,
            )

    def _store(self, array: NDArray[Any]) -> tuple[int, int]:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        key = (hashlib.blake2b(data).digest(), array.dtype.str)
        if key not in self._places:
            offset = -(-self._size // _ALIGNMENT) * _ALIGNMENT
            with (self._folder / WEIGHTS_FILE).open("ab") as file:
                file.write(b"\0" * (offset - self._size))
                file.write(data)
            self._places[key] = (offset, len(data))
            self._size = offset + len(data)
        return self._places[key]
