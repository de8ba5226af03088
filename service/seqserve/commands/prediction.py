"""The commands for models with heads: ``classify``, ``tag``, ``rerank``, ``fill-mask``."""

import dataclasses
import json
from typing import Any

import click

from seqserve.client import EncodingOptions
from seqserve.commands.invocation import (
    PRIORITY,
    TRUNCATION_OPTIONS,
    Call,
    calling,
    note_truncation,
    read_inputs,
    with_options,
)

_ENCODING_OPTIONS = (*TRUNCATION_OPTIONS, PRIORITY)


def _options(call: Call, given: dict[str, Any]) -> EncodingOptions:
    """What all calls take, of the options that are set."""
    chosen = {name: value for name, value in given.items() if value is not None}
    options: EncodingOptions = {"model": call.model, "version": call.version}
    options.update(chosen)  # type: ignore[typeddict-item]
    return options


def _print_json(text: str, result: Any) -> None:
    record = {"input": text, **dataclasses.asdict(result)}
    click.echo(json.dumps(record, ensure_ascii=False))


@click.command()
@click.argument("inputs", nargs=-1)
@calling
@click.option("--pair", help="Second text, read together with each input.")
@click.option("--top-k", type=int, help="Labels to print for each input; all by default.")
@click.option(
    "--function-to-apply",
    type=click.Choice(["softmax", "sigmoid", "none"]),
    help="What makes scores of logits; by default what the model was trained for.",
)
@with_options(_ENCODING_OPTIONS)
def classify(
    call: Call,
    inputs: tuple[str, ...],
    pair: str | None,
    top_k: int | None,
    function_to_apply: Any,
    **options: Any,
) -> None:
    """Labels each INPUT (default: lines of standard input).

    Prints one label a line: score, label and input, with tabs between them, best label first; or
    with --json an object for each input.
    """
    texts = read_inputs(inputs)
    with call.connect() as client:
        results = client.classify(
            texts if pair is None else [(text, pair) for text in texts],
            function_to_apply=function_to_apply or "",
            top_k=top_k,
            **_options(call, options),
        )
    for number, (text, result) in enumerate(zip(texts, results, strict=True), 1):
        if call.as_json:
            _print_json(text, result)
        else:
            for one in result.labels:
                click.echo(f"{one.score:.4f}\t{one.label}\t{text}")
        note_truncation(number, result.truncated_token_count)


@click.command()
@click.argument("inputs", nargs=-1)
@calling
@click.option(
    "--aggregation-strategy",
    type=click.Choice(["none", "simple", "first", "average", "max"]),
    default="simple",
    show_default=True,
    help="How tokens are joined to entities.",
)
@click.option(
    "--stride",
    type=int,
    help="Read inputs that are too long in windows that have this many tokens in common.",
)
@click.option(
    "--ignore-label",
    "ignore_labels",
    multiple=True,
    help='Label to leave out; may be given several times. By default "O".',
)
@click.option("--all-labels", is_flag=True, help="Leave no label out.")
@with_options(_ENCODING_OPTIONS)
def tag(
    call: Call,
    inputs: tuple[str, ...],
    aggregation_strategy: Any,
    stride: int | None,
    ignore_labels: tuple[str, ...],
    all_labels: bool,
    **options: Any,
) -> None:
    """Finds labelled parts of each INPUT (default: lines of standard input).

    Prints one part a line: the number of the input, the first character and one past the last,
    score, label and text, with tabs between them; or with --json an object for each input.
    """
    if all_labels and ignore_labels:
        raise click.UsageError(
            "--ignore-label has no effect with --all-labels; leave one of them out"
        )
    texts = read_inputs(inputs)
    with call.connect() as client:
        results = client.classify_tokens(
            texts,
            aggregation_strategy=aggregation_strategy,
            ignore_labels=ignore_labels if all_labels or ignore_labels else None,
            stride=stride,
            **_options(call, options),
        )
    for number, (text, result) in enumerate(zip(texts, results, strict=True), 1):
        if call.as_json:
            _print_json(text, result)
        else:
            for one in result.entities:
                part = text[one.start_offset : one.end_offset]
                place = f"{number}\t{one.start_offset}\t{one.end_offset}"
                click.echo(f"{place}\t{one.score:.4f}\t{one.label}\t{part}")
        note_truncation(number, result.truncated_token_count)


@click.command()
@click.argument("query")
@click.argument("documents", nargs=-1)
@calling
@click.option("--top-n", type=int, help="Documents to print; all by default.")
@click.option("--keep-order", is_flag=True, help="Print in the order of the documents.")
@click.option(
    "--activation",
    type=click.Choice(["sigmoid", "identity"]),
    help="What makes a score of a logit; the model's by default.",
)
@click.option("--prompt-name", help="Prompt to put before the query; empty for none.")
@with_options(_ENCODING_OPTIONS)
def rerank(
    call: Call,
    query: str,
    documents: tuple[str, ...],
    top_n: int | None,
    keep_order: bool,
    activation: Any,
    prompt_name: str | None,
    **options: Any,
) -> None:
    """Tells how well DOCUMENTS (default: lines of standard input) fit QUERY, best first.

    Prints one document a line: score and text with a tab between them; or with --json an object.
    """
    texts = read_inputs(documents)
    with call.connect() as client:
        results = client.rerank(
            query,
            texts,
            top_n=top_n,
            keep_order=keep_order,
            activation=activation or "",
            prompt_name=prompt_name,
            **_options(call, options),
        )
    for one in results:
        text = texts[one.index]
        if call.as_json:
            record = {"query": query, **dataclasses.asdict(one), "document": text}
            click.echo(json.dumps(record, ensure_ascii=False))
        else:
            click.echo(f"{one.score:.4f}\t{text}")
        note_truncation(one.index + 1, one.truncated_token_count)


@click.command("fill-mask")
@click.argument("inputs", nargs=-1)
@calling
@click.option("--top-k", type=int, help="Tokens to print for each mask; 5 by default.")
@click.option(
    "--vocabulary-target",
    "targets",
    multiple=True,
    help="Entry of the vocabulary to consider, and no others; may be given several times.",
)
@with_options(_ENCODING_OPTIONS)
def fill_mask(
    call: Call,
    inputs: tuple[str, ...],
    top_k: int | None,
    targets: tuple[str, ...],
    **options: Any,
) -> None:
    """Proposes tokens for the masks of each INPUT (default: lines of standard input).

    Prints one token a line: the number of the input, that of the mask, score, token and the text
    with the mask replaced, with tabs between them; or with --json an object for each input.
    """
    texts = read_inputs(inputs)
    with call.connect() as client:
        results = client.fill_mask(
            texts,
            top_k=top_k,
            targets=targets,
            return_sequences=True,
            **_options(call, options),
        )
    for number, (text, result) in enumerate(zip(texts, results, strict=True), 1):
        if call.as_json:
            _print_json(text, result)
        else:
            for mask_number, mask in enumerate(result.masks, 1):
                for one in mask:
                    place = f"{number}\t{mask_number}"
                    click.echo(f"{place}\t{one.score:.4f}\t{one.text}\t{one.sequence}")
        note_truncation(number, result.truncated_token_count)
