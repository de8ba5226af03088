"""The command ``embed``: vectors of texts, printed, compared or written to a file."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seqserve.client import Embeddings, EmbedOptions, Priority
from seqserve.commands.invocation import (
    PRIORITY,
    TRUNCATION_OPTIONS,
    Call,
    calling,
    note_truncation,
    read_inputs,
    refuse_together,
    with_options,
)


@click.command()
@click.argument("inputs", nargs=-1)
@calling
@click.option(
    "--normalize/--no-normalize", default=None, help="Scale to length 1; default: the model's."
)
@with_options(TRUNCATION_OPTIONS)
@click.option("--prompt-name", help="Prompt to put before inputs; empty for none.")
@click.option("--dimensions", type=int, help="How many of the first numbers to return.")
@click.option(
    "--stride",
    type=int,
    help="Read inputs that are too long in windows that have this many tokens in common.",
)
@PRIORITY
@click.option("--similarity", is_flag=True, help="Print the cosine similarities as a table.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the vectors to this .npy file instead of printing them.",
)
def embed(
    call: Call,
    inputs: tuple[str, ...],
    normalize: bool | None,
    truncate: bool,
    priority: Priority,
    similarity: bool,
    output: Path | None,
    **options: Any,
) -> None:
    """Embeds each INPUT (default: lines of standard input).

    Prints one JSON array a line, or with --json an object with the text and token counts.
    """
    if similarity:
        is_written = output is not None
        refuse_together("--similarity", ("--json", call.as_json), ("--output", is_written))
    if output is not None:
        refuse_together("--output", ("--json", call.as_json))
    texts = read_inputs(inputs)
    with call.connect() as client:
        embeddings = client.embed(
            texts,
            model=call.model,
            version=call.version,
            normalize=normalize,
            truncate=truncate,
            priority=priority,
            **EmbedOptions(
                **{name: value for name, value in options.items() if value is not None}  # type: ignore[typeddict-item]
            ),
        )
    for number, count in enumerate(embeddings.truncated_token_counts, 1):
        note_truncation(number, count)
    if output is not None:
        try:
            # Given a name, numpy would append .npy to it.
            with output.open("wb") as file:
                np.save(file, embeddings.vectors)
        except OSError as error:
            click.echo(f"error: {output} cannot be written: {error.strerror}", err=True)
            sys.exit(1)
        click.echo(f"wrote {len(texts)} vectors to {output}")
    elif similarity:
        _print_similarities(texts, embeddings)
    else:
        _print_vectors(texts, embeddings, as_json=call.as_json)


def _print_vectors(texts: list[str], embeddings: Embeddings, *, as_json: bool) -> None:
    for index, text in enumerate(texts):
        values = embeddings.vectors[index].tolist()
        record = {
            "input": text,
            "values": values,
            "token_count": embeddings.token_counts[index],
            "truncated_token_count": embeddings.truncated_token_counts[index],
        }
        click.echo(json.dumps(record if as_json else values, ensure_ascii=False))


def _print_similarities(texts: list[str], embeddings: Embeddings) -> None:
    # In float64 squares of float32 numbers do not overflow; a zero vector is like nothing.
    vectors = embeddings.vectors.astype(np.float64)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    table = Table("", *(str(number + 1) for number in range(len(texts))))
    for number, (text, row) in enumerate(zip(texts, unit @ unit.T, strict=True)):
        # Text: rich would read markup in a string.
        table.add_row(Text(f"{number + 1} {text}"), *(f"{value:.3f}" for value in row))
    Console().print(table)
