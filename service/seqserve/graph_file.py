"""What an ONNX file refers to outside of itself, read without onnx and before onnxruntime sees it.

onnxruntime would open a file that lies beside a graph whether the manifest lists it or not, and
then nobody has looked at its SHA-256. Of the protobuf message only those fields are followed that
lead to tensors; everything else is skipped by its length, weights included.

Source: onnx/onnx.proto (field numbers); protobuf.dev, "Encoding".
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from seqserve.errors import ModelFolderError
from seqserve.manifest import Manifest

_PATHS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "tensor": {13: "entry"},
}
"""Fields of each message that lead to external data, and what messages they hold."""
_KEY_FIELD, _VALUE_FIELD = 1, 2
_FIXED_SIZES = {1: 8, 5: 4}
"""Bytes of values by their wire type."""
_LENGTH_DELIMITED = 2
_MAX_SHIFT = 63


def check_external_data(folder: Path, manifest: Manifest) -> None:
    """Checks that graphs keep tensors in no files but those the manifest lists.

    Raises:
        ModelFolderError: A graph does, or it is damaged.
    """
    tokenizers = {manifest.source_tokenizer}
    if manifest.generation is not None:
        tokenizers.add(manifest.generation.target_tokenizer)
    for name in manifest.file_names():
        if name in tokenizers:
            continue
        for location in sorted(external_locations(folder / name)):
            if location not in manifest.files:
                raise ModelFolderError(
                    f"{folder / name} keeps tensors in {location!r}, which is no file of the "
                    "manifest: external data must lie beside the graph, listed in seqserve.json; "
                    "export the model again"
                )


def external_locations(path: Path) -> set[str]:
    """The files in which a graph keeps tensors, as it names them.

    Raises:
        ModelFolderError: The file is damaged.
    """
    if path.stat().st_size == 0:
        raise ModelFolderError(f"{path} is empty; export the model again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return set(_locations(data))
        except (IndexError, UnicodeDecodeError, ValueError) as error:
            raise ModelFolderError(
                f"{path} is no ONNX file, or damaged: {error}; export the model again"
            ) from error


def _locations(data: mmap.mmap) -> Iterator[str]:
    # A list rather than recursion: the file says how deep it is.
    messages = [("model", 0, len(data))]
    while messages:
        kind, start, end = messages.pop()
        if kind == "entry":
            key, value = _read_entry(data, start, end)
            if key == "location":
                yield value
            continue
        for number, first, last in _fields(data, start, end):
            if number in _PATHS[kind]:
                messages.append((_PATHS[kind][number], first, last))


def _read_entry(data: mmap.mmap, start: int, end: int) -> tuple[str, str]:
    """The key and the value of a ``StringStringEntryProto``."""
    texts = {number: data[first:last] for number, first, last in _fields(data, start, end)}
    return texts.get(_KEY_FIELD, b"").decode("utf-8"), texts.get(_VALUE_FIELD, b"").decode("utf-8")


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, first byte and end of each field of a message that has a length."""
    position = start
    while position < end:
        tag, position = _read_varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            _, position = _read_varint(data, position)
            continue
        if wire_type in _FIXED_SIZES:
            position += _FIXED_SIZES[wire_type]
            continue
        if wire_type != _LENGTH_DELIMITED or number == 0:
            raise ValueError(f"byte {position} begins no field")
        length, position = _read_varint(data, position)
        if position + length > end:
            raise ValueError(f"the field at byte {position} is cut off")
        yield number, position, position + length
        position += length


def _read_varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > _MAX_SHIFT:
            raise ValueError(f"the number before byte {position} is too long")
