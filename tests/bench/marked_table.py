"""Tables of pages that scripts write, between two marks."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path


def to_markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def put_into(page: str, name: str, table: str) -> str:
    """A page with the table between ``<!-- name -->`` and ``<!-- /name -->``."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    changed, count = re.subn(
        re.escape(begin) + ".*" + re.escape(end),
        lambda _: begin + table + end,
        page,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"the page has {count} places for the table {name}; it must have one")
    return changed


def write(path: Path, **tables: str) -> None:
    """Writes tables, by name, into a page."""
    page = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        page = put_into(page, name, table)
    path.write_text(page, encoding="utf-8")
