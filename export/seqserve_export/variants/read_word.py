"""Renders a word, has it read by a served image model, and shows where each letter was seen.

``python -m seqserve_export.variants.read_word transformer --target localhost:50051``. The model is
made by ``python -m seqserve_export.recipes.compare --only image``, which leaves it in
``work/compare/store``. An image is sent as token ids, one for each column of pixels.
"""

import random

import click
import numpy as np

from seqserve.client import CallError, Client
from seqserve_export.variants.lettering import draw, render, to_tokens


@click.command(name="read_word", context_settings={"show_default": True})
@click.argument("word")
@click.option("--target", default="localhost:50051", help="Address of the server.")
@click.option("--model", default="image", help="Name of the model.")
@click.option("--seed", default=1, help="Of how badly the word is printed.")
def main(word: str, target: str, model: str, seed: int) -> None:
    """Renders WORD, and has it read."""
    try:
        columns = render(word, random.Random(seed))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(draw(columns))
    tokens = to_tokens(columns)
    try:
        with Client(target) as client:
            attention = client.attend(tokens, model=model, kinds=["cross"], reduction="mean")
    except CallError as error:
        raise click.ClickException(error.message) from error
    assert attention.cross is not None
    weights = attention.cross.weights[0, 0]  # [T, S]
    places = np.arange(len(columns))
    for token, row in zip(attention.target_tokens, weights, strict=True):
        click.echo(f"{token.text:5} column {row @ places:5.1f} on average, most in {row.argmax()}")
    click.echo(attention.target_text.replace(" ", ""))


if __name__ == "__main__":
    main()
