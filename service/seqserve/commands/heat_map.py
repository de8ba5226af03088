"""A matrix of weights as colours: a rectangle for each, or all of them as one small image."""

import base64
import struct
import zlib
from collections.abc import Iterator
from collections.abc import Sequence as Items
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqserve.client.results import Token
from seqserve.commands.picture_label import to_title

Weights = NDArray[np.float32]

_LOW, _HIGH = np.array([247, 250, 255]), np.array([8, 48, 107])
"""Colours of the weight 0, and of the largest."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTH, _RGB = 8, 2


def draw_cells(
    weights: Weights, largest: float, size: int, rows: Items[Token], columns: Items[Token]
) -> Iterator[str]:
    """A rectangle for each weight [R, C], which tells its tokens when it is pointed at."""
    colours = _to_colours(weights, largest)
    names = ([to_title(token.text) for token in side] for side in (rows, columns))
    row_names, column_names = names
    for row, column in np.ndindex(*weights.shape):
        colour = "".join(f"{part:02x}" for part in colours[row, column])
        yield (
            f'<rect x="{column * size}" y="{row * size}" width="{size}" height="{size}" '
            f'fill="#{colour}"><title>{row_names[row]} ← {column_names[column]} '
            f"{weights[row, column]:.3f}</title></rect>"
        )


def draw_image(weights: Weights, largest: float, size: int) -> str:
    """All weights [R, C] as one image, which takes a hundredth of the bytes."""
    height, width = (size * number for number in weights.shape)
    data = base64.b64encode(_to_png(_to_colours(weights, largest))).decode()
    return (
        f'<image width="{width}" height="{height}" image-rendering="optimizeSpeed" '
        f'style="image-rendering:pixelated" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{data}"/>'
    )


def draw_scale(largest: float, width: int, height: int) -> str:
    """The colours from 0 to the largest weight."""
    steps = np.linspace(0, largest, width // 2, dtype=np.float32)[None]
    image = draw_image(steps, largest, 2)
    return image.replace('height="2"', f'height="{height}"', 1)


def _to_colours(weights: Weights, largest: float) -> NDArray[np.uint8]:
    """[R, C] -> [R, C, 3]."""
    shares = np.clip(weights / (largest or 1.0), 0.0, 1.0)[..., None]
    colours: NDArray[np.uint8] = (_LOW + (_HIGH - _LOW) * shares).round().astype(np.uint8)
    return colours


def _to_png(pixels: NDArray[np.uint8]) -> bytes:
    """An image of pixels [R, C, 3].

    Source: the PNG specification, https://www.w3.org/TR/png-3/, section 5.
    """
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, _DEPTH, _RGB, 0, 0, 0)
    lines = b"".join(b"\x00" + line.tobytes() for line in pixels)  # 0: as they are
    parts: tuple[Any, ...] = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return _SIGNATURE + b"".join(chunks)
