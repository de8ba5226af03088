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

from seqserve.client import Client, Embeddings, EmbedOptions, Priority
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
    "--max-active-dims", type=int, help="How many of the largest weights to return, if sparse."
)
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

    Prints one JSON array a line, or with --json an object with the text and token counts. Of sparse
    embeddings, prints tokens with their weights, the largest first: "cat:1.82 kitten:0.51".
    """
    if similarity:
        is_written = output is not None
        refuse_together("--similarity", ("--json", call.as_json), ("--output", is_written))
    if output is not None:
        refuse_together("--output", ("--json", call.as_json))
    texts = read_inputs(inputs)
    with call.connect() as client:
        is_sparse = _is_sparse(client, call)
        if is_sparse and output is not None:
            raise click.UsageError(
                "--output is for dense embeddings, but those of the model are sparse; use --json"
            )
        embeddings = client.embed(
            texts,
            model=call.model,
            version=call.version,
            normalize=normalize,
            truncate=truncate,
            priority=priority,
            **EmbedOptions(
                return_tokens=is_sparse,
                **{name: value for name, value in options.items() if value is not None},  # type: ignore[typeddict-item]
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
    elif is_sparse:
        _print_weights(texts, embeddings, as_json=call.as_json)
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


def _is_sparse(client: Client, call: Call) -> bool:
    """Whether the embeddings of the model are sparse, so that tokens can be asked for with them."""
    settings = [
        info.embedding
        for info in client.list_models()
        if info.embedding is not None
        and call.model in ("", info.name)
        and call.version in ("", info.version)
    ]
    # The newest version comes last. Of several models none is meant: the call then says so.
    return bool(settings) and settings[-1].sparse is not None


def _print_weights(texts: list[str], embeddings: Embeddings, *, as_json: bool) -> None:
    for index, (text, vector) in enumerate(zip(texts, embeddings.sparse, strict=True)):
        if as_json:
            record = {
                "input": text,
                "indices": vector.indices.tolist(),
                "values": vector.values.tolist(),
                "tokens": vector.tokens,
                "token_count": embeddings.token_counts[index],
                "truncated_token_count": embeddings.truncated_token_counts[index],
            }
            click.echo(json.dumps(record, ensure_ascii=False))
            continue
        order = np.argsort(-vector.values, kind="stable")
        click.echo(" ".join(f"{vector.tokens[one]}:{vector.values[one]:.4g}" for one in order))


def _print_similarities(texts: list[str], embeddings: Embeddings) -> None:
    vectors = embeddings.vectors
    if embeddings.sparse:
        size = 1 + max((int(one.indices.max(initial=0)) for one in embeddings.sparse), default=0)
        vectors = np.stack([one.to_dense(size) for one in embeddings.sparse])
    # In float64 squares of float32 numbers do not overflow; a zero vector is like nothing.
    vectors = vectors.astype(np.float64)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    table = Table("", *(str(number + 1) for number in range(len(texts))))
    for number, (text, row) in enumerate(zip(texts, unit @ unit.T, strict=True)):
        # Text: rich would read markup in a string.
        table.add_row(Text(f"{number + 1} {text}"), *(f"{value:.3f}" for value in row))
    Console().print(table)
