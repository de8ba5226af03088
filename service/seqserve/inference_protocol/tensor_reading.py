"""Tensors of a request, checked against what the model takes, as arrays."""

import math
from collections.abc import Iterator
from collections.abc import Sequence as Items
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.inference_protocol.datatype import DATATYPES, LENGTH_BYTES
from seqserve.inference_protocol.parameter import shorten
from seqserve.inference_protocol.signature import Input, Signature, Tensors
from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.servicers.input_check import check_count, check_token_count

_Tensor = open_inference_pb2.ModelInferRequest.InferInputTensor


def read_tensors(
    request: open_inference_pb2.ModelInferRequest, signature: Signature, config: ServerConfig
) -> Tensors:
    """The inputs of a request; texts decoded.

    Raises:
        InvalidRequestError: A tensor has the wrong datatype, shape or number of bytes, or too many
            elements.
    """
    specifications = {one.name: one for one in signature.inputs}
    raw = request.raw_input_contents
    for message in request.inputs:
        _check_parameters(message)
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequestError(
            "raw_input_contents",
            f"`raw_input_contents` must have an entry for each of the {len(request.inputs)} "
            f"inputs, but has {len(raw)}",
        )
    tensors: Tensors = {}
    for index, message in enumerate(request.inputs):
        _check_form(message, specifications[message.name], config)
        values = _read_raw(message, raw[index]) if raw else _read_contents(message)
        if message.datatype == "BYTES":
            values = _decode(values, message.name)
        tensors[message.name] = values.reshape(tuple(message.shape))
    return tensors


def _check_parameters(message: _Tensor) -> None:
    for parameter in sorted(message.parameters):
        what = "there are no parameters of tensors"
        if parameter.startswith("shared_memory"):
            what = "shared memory is not supported; send the data in the request"
        raise InvalidRequestError(
            message.name,
            f"the input `{message.name}` has the parameter `{shorten(parameter)}`, but {what}",
        )


def _check_form(message: _Tensor, specification: Input, config: ServerConfig) -> None:
    """Refuses tensors of another datatype or shape, and such as are too large to look at."""
    name, shape = message.name, list(message.shape)
    if message.datatype != specification.datatype:
        raise InvalidRequestError(
            name,
            f"`{name}` must have the datatype {specification.datatype}, but has "
            f"{shorten(message.datatype) or 'none'}",
        )
    expected = specification.shape
    fits = len(shape) == len(expected) and all(
        size >= 0 and wanted in (-1, size) for size, wanted in zip(shape, expected, strict=True)
    )
    if not fits:
        written = ", ".join("any" if size == -1 else str(size) for size in expected)
        raise InvalidRequestError(
            name, f"`{name}` must have the shape [{written}], but has {shorten(str(shape))}"
        )
    if expected[0] == -1:
        check_count(shape[0], name, config)
    if message.datatype != "BYTES":
        if not math.prod(shape):
            raise InvalidRequestError(name, f"`{name}` must not be empty, but has shape {shape}")
        check_token_count(math.prod(shape), name, config)


def _read_raw(message: _Tensor, data: bytes) -> NDArray[Any]:
    name, shape = message.name, list(message.shape)
    if message.HasField("contents"):
        raise InvalidRequestError(
            name, f"`{name}` has both `contents` and `raw_input_contents`; leave one of them out"
        )
    count = math.prod(shape)
    if message.datatype == "BYTES":
        return _to_objects(list(_split(data, count, name)))
    dtype = DATATYPES[message.datatype].dtype
    if len(data) != count * dtype.itemsize:
        raise InvalidRequestError(
            name,
            f"`{name}` of {message.datatype} {shape} must have {count * dtype.itemsize} bytes, but "
            f"has {len(data)}",
        )
    values: NDArray[Any] = np.frombuffer(data, dtype)
    return values


def _split(data: bytes, count: int, name: str) -> Iterator[bytes]:
    """The elements of a tensor of BYTES, each behind its length."""
    position = 0
    for index in range(count):
        start = position + LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "little")
        if start > len(data) or position > len(data):
            raise InvalidRequestError(
                name,
                f"`{name}` has {count} elements by its shape, but its {len(data)} bytes end before "
                f"or within element {index}",
            )
        yield data[start:position]
    if position != len(data):
        raise InvalidRequestError(
            name,
            f"`{name}` has {count} elements by its shape, which end after {position} bytes, but it "
            f"has {len(data)}",
        )


def _read_contents(message: _Tensor) -> NDArray[Any]:
    name, shape, datatype = message.name, list(message.shape), DATATYPES[message.datatype]
    for field, _ in message.contents.ListFields():
        if field.name != datatype.contents:
            raise InvalidRequestError(
                name,
                f"`{name}` of {message.datatype} must have its elements in "
                f"`{datatype.contents}`, but has some in `{field.name}`",
            )
    elements = getattr(message.contents, datatype.contents)
    if len(elements) != math.prod(shape):
        raise InvalidRequestError(
            name,
            f"`{name}` of shape {shape} must have {math.prod(shape)} elements, but has "
            f"{len(elements)}",
        )
    if message.datatype == "BYTES":
        return _to_objects(elements)
    return np.array(elements, datatype.dtype)


def _decode(values: NDArray[Any], name: str) -> NDArray[Any]:
    texts = []
    for index, value in enumerate(values):
        try:
            texts.append(value.decode("utf-8"))
        except UnicodeDecodeError as error:
            field = f"{name}[{index}]"
            raise InvalidRequestError(field, f"`{field}` is not UTF-8: {error.reason}") from error
    return _to_objects(texts)


def _to_objects(elements: Items[Any]) -> NDArray[Any]:
    # Not np.array, which would look into the elements.
    values = np.empty(len(elements), object)
    values[:] = list(elements)
    return values
