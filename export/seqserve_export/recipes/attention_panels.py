"""Weights of attention of several models side by side, as a small SVG."""

import dataclasses
from collections.abc import Sequence
from html import escape
from pathlib import Path

_PANELS_PER_ROW = 3
_PANEL_WIDTH, _MAX_CELL, _ROW_HEIGHT = 250, 19, 15
_LEFT, _TOP, _MARGIN = 34, 44, 18
_INK = "#0b4f8a"
_FAINTEST = 0.04
"""Weights below are left out."""
_MAX_LABELS = 24
"""Columns that have labels; more would be illegible."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """One model's weights."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    weights: Sequence[Sequence[float]]
    """[rows, columns], from 0 to 1."""


def write_panels(panels: Sequence[Panel], path: Path) -> None:
    """Writes the picture."""
    path.write_text(draw_panels(panels), encoding="utf-8")


def draw_panels(panels: Sequence[Panel]) -> str:
    """Draws the picture: targets below each other, sources side by side, dark where it is large."""
    lines = [
        panels[start : start + _PANELS_PER_ROW] for start in range(0, len(panels), _PANELS_PER_ROW)
    ]
    parts = []
    top = 0
    for line in lines:
        for index, panel in enumerate(line):
            x = index * (_LEFT + _PANEL_WIDTH + _MARGIN)
            parts.append(f'<g transform="translate({x} {top})">')
            parts += [*_draw_panel(panel), "</g>"]
        top += _TOP + _ROW_HEIGHT * max(len(panel.rows) for panel in line) + _MARGIN
    width = _PANELS_PER_ROW * (_LEFT + _PANEL_WIDTH + _MARGIN)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" '
        f'height="{top}" font-family="sans-serif" font-size="10" role="img">'
    )
    title = "<title>Cross-attention of each variant</title>"
    back = f'<rect width="{width}" height="{top}" fill="#ffffff"/>'
    return "\n".join([head, title, back, *parts, "</svg>"]) + "\n"


def _draw_panel(panel: Panel) -> list[str]:
    cell = min(_MAX_CELL, _PANEL_WIDTH / len(panel.columns))
    parts = [f'<text x="{_LEFT}" y="16" font-size="12" fill="#222222">{escape(panel.title)}</text>']
    if len(panel.columns) <= _MAX_LABELS:
        parts += [
            f'<text x="{_LEFT + (index + 0.5) * cell:.1f}" y="{_TOP - 6}" text-anchor="middle" '
            f'fill="#444444">{escape(_shorten(label))}</text>'
            for index, label in enumerate(panel.columns)
        ]
    for index, (label, weights) in enumerate(zip(panel.rows, panel.weights, strict=True)):
        y = _TOP + index * _ROW_HEIGHT
        parts.append(
            f'<text x="{_LEFT - 5}" y="{y + 11}" text-anchor="end" fill="#444444">'
            f"{escape(_shorten(label))}</text>"
        )
        parts += [
            f'<rect x="{_LEFT + place * cell:.1f}" y="{y}" width="{cell:.1f}" '
            f'height="{_ROW_HEIGHT}" fill="{_INK}" fill-opacity="{min(1.0, weight):.2f}"/>'
            for place, weight in enumerate(weights)
            if weight >= _FAINTEST
        ]
    frame = f'width="{cell * len(panel.columns):.1f}" height="{_ROW_HEIGHT * len(panel.rows)}"'
    parts.append(
        f'<rect x="{_LEFT}" y="{_TOP}" {frame} fill="none" stroke="#bbbbbb" stroke-width="0.5"/>'
    )
    return parts


def _shorten(label: str) -> str:
    """The end token takes too much room."""
    return "end" if label == "</s>" else label
