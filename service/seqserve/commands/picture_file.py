"""Writes pictures into files: as SVG, as a page, or as PNG, which takes a library that draws it."""

from pathlib import Path
from types import ModuleType

import click

from seqserve.commands.attention_picture import Matrices, draw_html, draw_svg

SUFFIXES = (".svg", ".html", ".png")
_ZOOM = 2
"""Pixels of a PNG for each of the picture, for the letters' sake."""
_MAX_PIXELS = 100_000_000
"""Of a PNG; each takes four bytes of memory."""


def check_path(path: Path) -> None:
    """Refuses a file that cannot be drawn, before anything is asked for.

    Raises:
        click.UsageError: Its suffix is unknown, or what draws it is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise click.UsageError(f"--out must end with .svg, .html or .png, but is {path}")
    if path.suffix == ".png":
        _import_renderer()


def write_picture(path: Path, blocks: list[Matrices], source: str, target: str) -> None:
    """Draws weights in the format that the file's suffix names.

    Raises:
        click.ClickException: It would have too many pixels.
    """
    if path.suffix == ".html":
        path.write_text(draw_html(blocks, source, target), encoding="utf-8")
        return
    picture = draw_svg(blocks, f"{source} → {target}" if target else source)
    if path.suffix == ".svg":
        path.write_text(picture, encoding="utf-8")
    else:
        path.write_bytes(_to_png(picture))


def _to_png(picture: str) -> bytes:
    width, height = measure(picture)
    if _ZOOM**2 * width * height > _MAX_PIXELS:
        raise click.ClickException(
            f"the picture is {width:.0f} by {height:.0f} pixels, too large for a PNG; write an "
            ".svg, or choose fewer layers and heads with --layer and --head"
        )
    return bytes(_import_renderer().svg_to_bytes(svg_string=picture, zoom=_ZOOM))


def measure(picture: str) -> tuple[float, float]:
    """Width and height of an SVG."""
    _, _, width, height = picture.split('viewBox="', 1)[1].split('"', 1)[0].split()
    return float(width), float(height)


def _import_renderer() -> ModuleType:
    try:
        import resvg_py
    except ImportError as error:
        raise click.UsageError(
            "--out with .png needs the extra `picture`: pip install 'seqserve[picture]'; .svg and "
            ".html need nothing"
        ) from error
    return resvg_py
