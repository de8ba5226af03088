"""Semantic search over the documentation strings of Python's standard library.

``python -m seqserve.examples.semantic_search "wait for several threads"`` finds functions by what
they are said to do. It needs a running server with a model that embeds, such as that of ``make
serve``; it embeds some thousand first paragraphs through ``EmbedStream``, and numpy does the rest.
"""

import ast
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from rich.text import Text

from seqserve.client import CallError, Client

_BATCH_SIZE = 32
_MAX_WORDS = 40
_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "pydoc_data"}


class Documentation(NamedTuple):
    """What is said of a module, a class or a function."""

    name: str
    text: str


def read_documentation() -> list[Documentation]:
    """The first paragraphs of all public documentation strings, read without importing anything."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, Documentation] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _LEFT_OUT.isdisjoint(parts) and not any(part.startswith("_") for part in parts):
            tree = ast.parse(path.read_bytes())
            for one in _walk(tree, ".".join(parts)):
                found.setdefault(one.text, one)  # the same words say the same
    return list(found.values())


def _walk(node: ast.AST, name: str) -> Iterator[Documentation]:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return
    text = (ast.get_docstring(node) or "").split("\n\n")[0]
    words = text.split()[:_MAX_WORDS]
    if len(words) > 2:
        yield Documentation(name, " ".join(words))
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            child_name = getattr(child, "name", "_")
            if not child_name.startswith("_"):
                yield from _walk(child, f"{name}.{child_name}")


def embed_all(client: Client, texts: list[str], model: str) -> np.ndarray:
    """The embeddings [N, M] of texts, of length 1."""
    batches = [texts[start : start + _BATCH_SIZE] for start in range(0, len(texts), _BATCH_SIZE)]
    vectors = []
    answers = client.embed_stream(batches, model=model, normalize=True, truncate=True)
    for answer in track(answers, "embedding", total=len(batches)):
        if isinstance(answer, CallError):
            raise answer
        vectors.append(answer.vectors)
    return np.concatenate(vectors)


@click.command()
@click.argument("queries", nargs=-1, required=True)
@click.option("--target", default="localhost:50051", show_default=True)
@click.option("--model", default="all-minilm-l6-v2", show_default=True)
@click.option("--top", default=5, show_default=True, help="Results to print for each query.")
def main(queries: tuple[str, ...], target: str, model: str, top: int) -> None:
    """Finds what the standard library has for each of QUERIES."""
    documents = read_documentation()
    console = Console()
    with Client(target) as client:
        started_at = time.monotonic()
        vectors = embed_all(client, [one.text for one in documents], model)
        seconds = time.monotonic() - started_at
        console.print(f"{len(documents)} texts in {seconds:.1f} s")
        wanted = client.embed(list(queries), model=model, normalize=True).vectors
    for query, similarities in zip(queries, wanted @ vectors.T, strict=True):
        table = Table("", escape(query), "")
        for index in np.argsort(-similarities)[:top]:
            one = documents[index]
            table.add_row(f"{similarities[index]:.2f}", Text(one.name), Text(one.text))
        console.print(table)


if __name__ == "__main__":
    main()
