"""Writes pictures into files: as SVG, as a page, or as PNG, which takes a library that draws it."""

import sys
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
        click.UsageError: Its suffix is unknown, its folder is missing, or what draws it is not
            installed.
    """
    if path.suffix not in SUFFIXES:
        raise click.UsageError(f"--out must end with .svg, .html or .png, but is {path}")
    if not path.parent.is_dir():
        raise click.UsageError(f"--out must be in a folder that is there, but is {path}")
    if path.suffix == ".png":
        _import_renderer()


def write_picture(path: Path, blocks: list[Matrices], source: str, target: str) -> None:
    """Draws weights in the format that the file's suffix names.

    A file that cannot be written becomes one line and exit code 1.

    Raises:
        click.ClickException: It would have too many pixels.
    """
    if path.suffix == ".html":
        data = draw_html(blocks, source, target).encode()
    else:
        picture = draw_svg(blocks, f"{source} → {target}" if target else source)
        data = picture.encode() if path.suffix == ".svg" else _to_png(picture)
    try:
        path.write_bytes(data)
    except OSError as error:
        click.echo(f"error: {path} cannot be written: {error.strerror}", err=True)
        sys.exit(1)


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
