"""Pictures of attention: what is drawn where, and that it can be read."""

import base64
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest

from seqserve.client import AttentionWeights
from seqserve.client.results import Token
from seqserve.commands.attention_picture import Matrices, draw_svg
from seqserve.commands.picture_label import to_label, to_title, width_of

SVG = "{http://www.w3.org/2000/svg}"
LEAST_FONT = 10
WORDS = ("▁the", "▁international", "ing", "s", ",", "猫が座った", "שלום", "</s>")


class Box(NamedTuple):
    """What a text takes, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box") -> bool:
        """Whether they have more than an edge in common."""
        return (
            min(self.right, other.right) - max(self.left, other.left) > 0.1
            and min(self.bottom, other.bottom) - max(self.top, other.top) > 0.1
        )


def draw(shape: tuple[int, int, int, int], kind: str = "cross") -> ElementTree.Element:
    """A picture of random weights."""
    weights = np.random.default_rng(1).random(shape, np.float32)
    found = AttentionWeights(
        weights / weights.sum(axis=-1, keepdims=True),
        tuple(range(shape[0])),
        tuple(range(shape[1])),
    )
    rows, columns = (
        [Token(7, WORDS[index % len(WORDS)], 0, 0, False) for index in range(number)]
        for number in shape[2:]
    )
    return ElementTree.fromstring(draw_svg([Matrices(kind, found, rows, columns)], "a & b"))


def find_boxes(element: ElementTree.Element, left: float = 0.0, top: float = 0.0) -> list[Box]:
    """The boxes of all texts, by the metrics of a common font."""
    boxes, font = [], float(element.get("font-size", 0))
    for one in element:
        move = re.match(r"translate\((\S+) (\S+)\)", one.get("transform", ""))
        x, y = left + float(one.get("x", 0)), top + float(one.get("y", 0))
        if move:
            x, y = x + float(move[1]), y + float(move[2])
        if one.tag != f"{SVG}text":
            one.set("font-size", one.get("font-size", str(font)))
            boxes += find_boxes(one, x, y)
            continue
        size = float(one.get("font-size", font))
        assert size >= LEAST_FONT
        width, ascent, descent = width_of(one.text or "", size), 0.75 * size, 0.2 * size
        if "rotate(-90)" in one.get("transform", ""):
            boxes.append(Box(x - ascent, y - width, x + descent, y))
        else:
            x -= width if one.get("text-anchor") == "end" else 0
            boxes.append(Box(x, y - ascent, x + width, y + descent))
    return boxes


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 60, 60), (3, 4, 60, 60), (12, 12, 60, 60), (2, 2, 20, 9), (2, 3, 1, 2), (1, 1, 1, 1)],
    ids=str,
)
def test_texts_can_be_read(shape: tuple[int, int, int, int]) -> None:
    """None is small, covers another or is cut off, and no two labels in a row are far apart."""
    root = draw(shape)
    boxes = find_boxes(root)
    width, height = (float(root.get(name, 0)) for name in ("width", "height"))
    for index, box in enumerate(boxes):
        assert box.left >= 0
        assert box.top >= 0
        assert box.right <= width + 1
        assert box.bottom <= height + 1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
    num_layers, num_heads, num_rows, num_columns = shape
    for side, number, times in (("row", num_rows, num_layers), ("column", num_columns, num_heads)):
        labels = root.findall(f".//{SVG}text[@class='{side}']")
        # Of 60 tokens beside small matrices every third one is named.
        step = 3 if number == 60 and num_layers > 1 else 1
        assert len(labels) == times * -(-number // step)


def test_many_cells_are_images() -> None:
    """One for each matrix, a pixel for each weight; the darkest is the largest weight."""
    weights = np.zeros((2, 3, 60, 50), np.float32)
    weights[1, 2, 7, 3] = 0.4
    found = AttentionWeights(weights, (0, 1), (0, 1, 2))
    tokens = [Token(7, "a", 0, 0, False)] * 60
    picture = draw_svg([Matrices("cross", found, tokens, tokens[:50])], "a")
    assert len(picture) < 60_000
    root = ElementTree.fromstring(picture)
    assert not root.findall(f".//{SVG}title")
    _, *images = [read_png(one) for one in root.iter(f"{SVG}image")]  # the first is the scale
    assert [one.shape for one in images] == [(60, 50, 3)] * 6
    dark = [np.argwhere(one.sum(axis=-1) < 300).tolist() for one in images]
    assert dark == [[], [], [], [], [], [[7, 3]]]
    assert "0.4" in [one.text for one in root.iter(f"{SVG}text")]


def read_png(image: Any) -> np.ndarray[Any, Any]:
    """The pixels of an embedded image."""
    data = base64.b64decode(image.get("href").partition(",")[2])
    width, height = struct.unpack(">II", data[16:24])
    start = data.index(b"IDAT") + 4
    (size,) = struct.unpack(">I", data[start - 8 : start - 4])
    lines = np.frombuffer(zlib.decompress(data[start : start + size]), np.uint8)
    return lines.reshape(height, 1 + 3 * width)[:, 1:].reshape(height, width, 3)


@pytest.mark.parametrize(
    ("layers", "heads", "shape", "names"),
    [
        ((1,), (0, 2), (1, 2), ["layer 1, head 0", "layer 1, head 2"]),
        ((0, 1), (0, 1, 2), (2, 1), ["layer 0, 3 heads", "layer 1, 3 heads"]),
        ((0, 1), (0, 1, 2), (1, 1), ["2 layers, 3 heads"]),
    ],
)
def test_matrices_say_what_they_are_of(
    layers: Sequence[int], heads: Sequence[int], shape: tuple[int, int], names: list[str]
) -> None:
    """The layer and head, or how many went into it."""
    found = AttentionWeights(np.ones((*shape, 1, 1), np.float32), tuple(layers), tuple(heads))
    token = [Token(7, "a", 0, 0, False)]
    root = ElementTree.fromstring(draw_svg([Matrices("encoder_self", found, token, token)], "a"))
    texts = [one.text for one in root.iter(f"{SVG}text") if not one.get("class")]
    assert [text for text in texts if text and "head" in text] == names


def test_labels_are_short_clean_and_in_their_direction() -> None:
    """What runs from right to left is isolated, so that its marks are on its left."""
    for text in ("שלום!", "123 مرحبا"):
        assert to_label(text) == f"\u2067{text}\u2069"
    assert to_label("<b>&\n") == "&lt;b&gt;&amp;·"
    assert to_label("x" * 40) == "x" * 23 + "…"
    assert to_label("猫" * 20) == "猫" * 11 + "…"
    assert to_title("猫" * 20) == "猫" * 20
    assert width_of("猫", 10) == 2 * width_of("a", 10)
    assert width_of("e\u0301", 10) == width_of("e", 10)
