"""Weights of attention as heat maps: one SVG, or a page with it. Nothing but text is needed.

Each kind is a block, in which several layers and heads are small multiples, a row of matrices for
each layer, with the tokens beside the first and above the topmost ones. Where cells are smaller
than letters, as many tokens are left out as it takes for the others to be legible.
"""

import math
from collections.abc import Sequence as Items
from typing import NamedTuple

from seqserve.client import AttentionWeights
from seqserve.client.results import Token
from seqserve.commands.heat_map import Weights, draw_cells, draw_image, draw_scale
from seqserve.commands.picture_label import to_label, to_title, width_of

_CELL, _SMALLEST_CELL, _SMALL_MATRIX = 16, 4, 240
"""Pixels of a cell, of the smallest of small multiples, and of such a matrix. A matrix alone is
about a thousand wide with 60 by 60 tokens."""
_FONT, _SMALL_FONT = 12, 10
_LINE = 1.2
"""Distance of lines that do not touch, as a share of the font."""
_BASE = 0.35
"""From the middle of a line to where its letters stand, as a share of the font."""
_GAP, _MARGIN = 14, 4
_HEADING = 44
_SCALE_WIDTH, _SCALE_HEIGHT = 80, 10
_MAX_POINTED_CELLS = 10_000
"""Of a block, whose cells tell their tokens and weights when pointed at; more are images."""
_STYLE = (
    "text{font-family:ui-monospace,Menlo,Consolas,'Noto Sans Mono','DejaVu Sans Mono',monospace;"
    "fill:#111}.heading{font-weight:bold}.frame{fill:none;stroke:#999;stroke-width:.5}"
)
_NAMES = {
    "encoder_self": ("encoder self-attention", "rows and columns: source tokens"),
    "decoder_self": ("decoder self-attention", "rows: target tokens; columns: tokens read before"),
    "cross": ("cross-attention", "rows: target tokens; columns: source tokens"),
}


class Matrices(NamedTuple):
    """The weights of one kind, and what rows and columns stand for."""

    kind: str
    found: AttentionWeights
    rows: Items[Token]
    columns: Items[Token]


class _Block(NamedTuple):
    parts: list[str]
    width: float
    height: float


class _Grid(NamedTuple):
    """Where the matrices of a block are."""

    cell: int
    font: int
    left: float
    """What the labels of rows take."""
    above: float
    """What the labels of columns take."""
    width: float
    """From one matrix to the next."""
    height: float

    @property
    def stride(self) -> int:
        """Tokens from one label to the next."""
        return math.ceil(self.font * _LINE / self.cell)


def draw_svg(blocks: Items[Matrices], title: str) -> str:
    """A picture of the weights of one kind or several, one below the other."""
    parts: list[str] = []
    width, top = 0.0, float(_GAP)
    for matrices in blocks:
        block = _draw_block(matrices)
        parts += [f'<g transform="translate({_GAP} {top:g})">', *block.parts, "</g>"]
        width, top = max(width, block.width + 2 * _GAP), top + block.height + _GAP
    name = to_title(f"Attention: {title}").replace('"', "&quot;")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{top:g}" '
            f'viewBox="0 0 {width:g} {top:g}" role="img" aria-label="{name}">',
            f"<style>{_STYLE}</style>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def draw_html(blocks: Items[Matrices], source: str, target: str) -> str:
    """A page with that picture and its texts, which needs nothing else."""
    title = f"{source} → {target}" if target else source
    texts = "\n".join(f'<p dir="auto">{to_title(text)}</p>' for text in (source, target) if text)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{to_title(title)}</title></head>\n"
        '<body style="font-family:system-ui,sans-serif">\n'
        f"{texts}\n{draw_svg(blocks, title)}</body></html>\n"
    )


def _draw_block(matrices: Matrices) -> _Block:
    weights = matrices.found.weights  # [layers, heads, rows, columns]
    num_layers, num_heads, _, num_columns = weights.shape
    grid, largest = _lay_out(matrices), float(weights.max(initial=0.0))
    heading = _draw_heading(matrices.kind, largest)
    parts = [*heading.parts, f'<g font-size="{grid.font}">']
    has_titles = weights.size <= _MAX_POINTED_CELLS
    top = float(_HEADING)
    for layer in range(num_layers):
        line = top + grid.font * _LINE
        top = line + (grid.above if layer == 0 else _MARGIN)
        for head in range(num_heads):
            left = grid.left + head * grid.width
            name = _describe(matrices.found, layer, head)
            parts.append(f'<text x="{left:g}" y="{line - _MARGIN:g}">{name}</text>')
            if layer == 0:
                parts += _draw_columns(matrices.columns, grid, left, top)
            parts.append(f'<g transform="translate({left:g} {top:g})">')
            parts += _draw_matrix(matrices, weights[layer, head], largest, grid.cell, has_titles)
            parts.append("</g>")
        parts += _draw_rows(matrices.rows, grid, top)
        top += grid.height
    parts.append("</g>")
    width = grid.left + (num_heads - 1) * grid.width + num_columns * grid.cell
    names = width_of(_describe(matrices.found, 0, num_heads - 1), grid.font)
    last = grid.left + (num_heads - 1) * grid.width + names
    return _Block(parts, max(width, last, heading.width), top - _GAP)


def _lay_out(matrices: Matrices) -> _Grid:
    weights = matrices.found.weights
    num_layers, num_heads, num_rows, num_columns = weights.shape
    cell, font = _CELL, _FONT
    if num_layers * num_heads > 1:
        fitting = _SMALL_MATRIX // max(num_rows, num_columns, 1)
        cell, font = min(max(fitting, _SMALLEST_CELL), _CELL), _SMALL_FONT
    rows, columns = (
        max((width_of(token.text, font) for token in side), default=0.0)
        for side in (matrices.rows, matrices.columns)
    )
    name = max(width_of(_describe(matrices.found, 0, head), font) for head in range(num_heads))
    return _Grid(
        cell=cell,
        font=font,
        left=rows + _MARGIN,
        above=columns + 2 * _MARGIN,
        width=max(cell * num_columns, name) + _GAP,
        height=cell * num_rows + _GAP,
    )


def _draw_heading(kind: str, largest: float) -> _Block:
    """What is shown, and which colour is which weight."""
    name, axes = _NAMES[kind]
    left = width_of(name, _FONT) + 2 * _GAP
    scale, ends = left + width_of("0", _SMALL_FONT) + _MARGIN, f"{largest:.2g}"
    right = scale + _SCALE_WIDTH + _MARGIN
    parts = [
        f'<text class="heading" font-size="{_FONT}" y="{_FONT}">{name}</text>',
        f'<g font-size="{_SMALL_FONT}"><text x="{left:g}" y="{_FONT}">0</text>',
        f'<g transform="translate({scale:g} {_FONT - _SCALE_HEIGHT + 1})">',
        draw_scale(largest, _SCALE_WIDTH, _SCALE_HEIGHT),
        f'<rect class="frame" width="{_SCALE_WIDTH}" height="{_SCALE_HEIGHT}"/></g>',
        f'<text x="{right:g}" y="{_FONT}">{ends}</text>',
        f'<text y="{_FONT + _SMALL_FONT * _LINE + _MARGIN:g}">{axes}</text></g>',
    ]
    width = max(right + width_of(ends, _SMALL_FONT), width_of(axes, _SMALL_FONT))
    return _Block(parts, width, _HEADING)


def _draw_rows(tokens: Items[Token], grid: _Grid, top: float) -> list[str]:
    """The tokens beside a matrix."""
    return [
        f'<text class="row" x="{grid.left - _MARGIN:g}" text-anchor="end" '
        f'y="{top + (index + 0.5) * grid.cell + _BASE * grid.font:g}">'
        f"{to_label(tokens[index].text)}</text>"
        for index in range(0, len(tokens), grid.stride)
    ]


def _draw_columns(tokens: Items[Token], grid: _Grid, left: float, top: float) -> list[str]:
    """The tokens above a matrix, upright."""
    labels = []
    for index in range(0, len(tokens), grid.stride):
        x, y = left + (index + 0.5) * grid.cell + _BASE * grid.font, top - _MARGIN
        labels.append(
            f'<text class="column" transform="translate({x:g} {y:g}) rotate(-90)">'
            f"{to_label(tokens[index].text)}</text>"
        )
    return labels


def _draw_matrix(
    matrices: Matrices, weights: Weights, largest: float, cell: int, has_titles: bool
) -> list[str]:
    height, width = (cell * number for number in weights.shape)
    if has_titles:
        cells = [*draw_cells(weights, largest, cell, matrices.rows, matrices.columns)]
    else:
        cells = [draw_image(weights, largest, cell)]
    return [*cells, f'<rect class="frame" width="{width}" height="{height}"/>']


def _describe(found: AttentionWeights, layer: int, head: int) -> str:
    """Which layer and head a matrix is of, or how many are reduced in it."""
    names = []
    for name, index, chosen, size in (
        ("layer", layer, found.layers, found.weights.shape[0]),
        ("head", head, found.heads, found.weights.shape[1]),
    ):
        is_reduced = len(chosen) > size
        names.append(f"{len(chosen)} {name}s" if is_reduced else f"{name} {chosen[index]}")
    return ", ".join(names)
