"""Lines over a row of places, as a small SVG without anything from outside."""

import dataclasses
from collections.abc import Sequence
from html import escape
from pathlib import Path

_WIDTH, _HEIGHT = 760, 400
_LEFT, _TOP, _BOTTOM = 64, 40, 56
_LABEL_WIDTH = 250
_LABEL_STEP = 16
"""Between two lines of labels."""
_COLORS = ("#0b63c5", "#d1480a", "#128a3e", "#8c2fb3", "#b8860b", "#c2185b", "#00838f", "#5d4037")
_DASHES = ("none", "7 4", "2 3")


@dataclasses.dataclass(frozen=True)
class Line:
    """One line."""

    label: str
    values: Sequence[float | None]
    """One for each place; None is a gap at an end."""
    spans: Sequence[tuple[float, float]] = ()
    """The lowest and the highest of several measurements at each place."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LineChart:
    """What is drawn; values are shares."""

    title: str
    places: Sequence[str]
    x_label: str
    y_label: str
    lines: Sequence[Line]

    @property
    def highest(self) -> float:
        """The top of the axis, a multiple of a tenth."""
        values = [value for line in self.lines for value in line.values if value is not None]
        values += [high for line in self.lines for _, high in line.spans]
        return max(1, -(-max(values) // 0.1)) / 10


def write_line_chart(chart: LineChart, path: Path) -> None:
    """Writes the picture."""
    path.write_text(draw_line_chart(chart), encoding="utf-8")


def draw_line_chart(chart: LineChart) -> str:
    """Draws the picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="12" '
        'role="img">',
        f"<title>{escape(chart.title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 22, chart.title, size=14),
        *_draw_axes(chart),
    ]
    labels = _spread(
        [_y(chart, next(v for v in reversed(line.values) if v is not None)) for line in chart.lines]
    )
    for index, (line, y) in enumerate(zip(chart.lines, labels, strict=True)):
        parts += _draw_line(chart, line, index, y)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw_axes(chart: LineChart) -> list[str]:
    right = _x(chart, len(chart.places) - 1)
    parts = []
    num_ticks = round(chart.highest * 10)
    step = max(1, -(-num_ticks // 8))
    for tick in range(0, num_ticks + 1, step):
        y = _y(chart, tick / 10)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right:.1f}" stroke="#dddddd"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{10 * tick} %", anchor="end"))
    for index, place in enumerate(chart.places):
        x = _x(chart, index)
        parts.append(_text(x, _HEIGHT - _BOTTOM + 18, place, anchor="middle"))
    middle = (_LEFT + right) / 2
    parts.append(_text(middle, _HEIGHT - 14, chart.x_label, anchor="middle"))
    turn = f"rotate(-90 16 {(_TOP + _HEIGHT - _BOTTOM) / 2:.0f})"
    label = _text(16, (_TOP + _HEIGHT - _BOTTOM) / 2, chart.y_label, anchor="middle")
    return [*parts, f'<g transform="{turn}">{label}</g>']


def _draw_line(chart: LineChart, line: Line, index: int, label_y: float) -> list[str]:
    color, dash = _COLORS[index % len(_COLORS)], _DASHES[index // len(_COLORS) % len(_DASHES)]
    points = [
        (_x(chart, place), _y(chart, value))
        for place, value in enumerate(line.values)
        if value is not None
    ]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    style = f'stroke="{color}" stroke-width="2" stroke-dasharray="{dash}"'
    parts = [f'<path d="M{path}" fill="none" {style}/>']
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points]
    for place, (low, high) in enumerate(line.spans):
        x = _x(chart, place)
        ends = f"M{x:.1f} {_y(chart, low):.1f}V{_y(chart, high):.1f}"
        parts.append(f'<path d="{ends}" stroke="{color}" stroke-width="1"/>')
    x, y = points[-1]
    lead = f"M{x + 5:.1f} {y:.1f}L{x + 18:.1f} {label_y:.1f}"
    parts.append(f'<path d="{lead}" fill="none" stroke="{color}" stroke-width="0.7"/>')
    parts.append(_text(x + 22, label_y + 4, line.label, color=color))
    return parts


def _spread(ys: Sequence[float]) -> list[float]:
    """Heights for labels, near their lines and not upon each other."""
    order = sorted(range(len(ys)), key=lambda index: ys[index])
    placed: dict[int, float] = {}
    lowest = float(_TOP - _LABEL_STEP)
    for index in order:
        lowest = max(ys[index], lowest + _LABEL_STEP)
        placed[index] = lowest
    excess = max(0.0, lowest - (_HEIGHT - _BOTTOM))
    highest = float(_HEIGHT)
    for index in reversed(order):
        highest = min(placed[index], highest - _LABEL_STEP if excess else placed[index])
        if excess and index == order[-1]:
            highest = placed[index] - excess
        placed[index] = highest
    return [placed[index] for index in range(len(ys))]


def _x(chart: LineChart, place: int) -> float:
    width = _WIDTH - _LEFT - _LABEL_WIDTH
    return _LEFT + width * place / max(1, len(chart.places) - 1)


def _y(chart: LineChart, value: float) -> float:
    height = _HEIGHT - _TOP - _BOTTOM
    return _TOP + height * (1 - value / chart.highest)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 12,
    anchor: str = "start",
    color: str = "#222222",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="{color}">{escape(text)}</text>'
    )
