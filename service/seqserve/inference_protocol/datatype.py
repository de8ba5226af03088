"""Datatypes of tensors, as far as models take or give them."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class Datatype:
    """How elements are written."""

    contents: str
    """The field of ``InferTensorContents``."""
    dtype: Any
    """Little-endian, as bytes are; objects for texts."""


DATATYPES = {
    "BYTES": Datatype("bytes_contents", np.dtype(object)),
    "INT32": Datatype("int_contents", np.dtype("<i4")),
    "INT64": Datatype("int64_contents", np.dtype("<i8")),
    "FP32": Datatype("fp32_contents", np.dtype("<f4")),
}
"""By name."""
LENGTH_BYTES = 4
"""Before each element of BYTES where a tensor is written as bytes: its length, little-endian."""
