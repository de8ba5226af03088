"""Arrays as the tensors of a reply, in the encoding of the request."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqserve.inference_protocol.datatype import DATATYPES, LENGTH_BYTES
from seqserve.inference_protocol.signature import Output
from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.manifest import Manifest


def to_response(
    request: open_inference_pb2.ModelInferRequest,
    manifest: Manifest,
    outputs: list[tuple[Output, NDArray[Any]]],
) -> open_inference_pb2.ModelInferResponse:
    """A reply with these outputs."""
    response = open_inference_pb2.ModelInferResponse(
        model_name=manifest.name, model_version=manifest.version, id=request.id
    )
    for output, values in outputs:
        tensor = response.outputs.add(
            name=output.name, datatype=output.datatype, shape=values.shape
        )
        datatype = DATATYPES[output.datatype]
        if request.raw_input_contents:
            response.raw_output_contents.append(_to_bytes(values, datatype.dtype))
            continue
        elements: list[Any] = values.ravel().tolist()
        if datatype.dtype.hasobject:
            elements = [text.encode() for text in elements]
        getattr(tensor.contents, datatype.contents).extend(elements)
    return response


def _to_bytes(values: NDArray[Any], dtype: Any) -> bytes:
    if not dtype.hasobject:
        return np.ascontiguousarray(values, dtype).tobytes()
    parts = []
    for text in values.ravel():
        data = text.encode()
        parts += [len(data).to_bytes(LENGTH_BYTES, "little"), data]
    return b"".join(parts)
