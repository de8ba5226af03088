"""The command ``tokenize``: the tokens of texts."""

import dataclasses
import json

import click

from seqserve.commands.invocation import Call, calling, read_inputs


@click.command()
@click.argument("inputs", nargs=-1)
@calling
def tokenize(call: Call, inputs: tuple[str, ...]) -> None:
    """Prints the tokens of each INPUT (default: lines of standard input)."""
    texts = read_inputs(inputs)
    with call.connect() as client:
        tokenizations = client.tokenize(texts, model=call.model, version=call.version)
    for text, tokens in zip(texts, tokenizations, strict=True):
        if call.as_json:
            record = {"input": text, "tokens": [dataclasses.asdict(token) for token in tokens]}
            click.echo(json.dumps(record, ensure_ascii=False))
        else:
            click.echo(" ".join(f"{token.text}:{token.token_id}" for token in tokens))
