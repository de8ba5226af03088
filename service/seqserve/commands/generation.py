"""The command ``generate``: targets from texts, whole or piece by piece."""

import dataclasses
import json
from typing import Any, Literal

import click
import numpy as np

from seqserve.client import (
    GenerateOptions,
    Generation,
    GenerationStream,
    Priority,
    to_pharaoh,
)
from seqserve.commands.decoding_options import DECODING_OPTIONS
from seqserve.commands.invocation import (
    PRIORITY,
    Call,
    calling,
    note_truncation,
    read_inputs,
    refuse_together,
    with_options,
)


def _note_seed(number: int, generation: Generation, options: GenerateOptions) -> None:
    """Says on standard error how to draw the same again."""
    if generation.seed is not None and "seed" not in options:
        click.echo(f"note: input {number} was drawn with --seed {generation.seed}", err=True)


@click.command()
@click.argument("inputs", nargs=-1)
@calling
@with_options(DECODING_OPTIONS)
@click.option("--source-language", default="", help="Language of the inputs.")
@click.option("--target-language", default="", help="Language to generate.")
@click.option("--target-prefix", default="", help="Text every target begins with.")
@click.option("--truncate", is_flag=True, help="Cut inputs that are too long at their end.")
@PRIORITY
@click.option("--stream", is_flag=True, help="Print pieces as they are decided.")
@click.option("--scores", is_flag=True, help="Print the score of each hypothesis.")
@click.option(
    "--alignments",
    type=click.Choice(["tokens", "words", "characters"]),
    help="Print what each of them came from, in Pharaoh format; with --json all weights.",
)
def generate(
    call: Call,
    inputs: tuple[str, ...],
    source_language: str,
    target_language: str,
    target_prefix: str,
    truncate: bool,
    priority: Priority,
    stream: bool,
    scores: bool,
    alignments: Any,
    **decoding: Any,
) -> None:
    """Generates a target from each INPUT (default: lines of standard input).

    Prints one hypothesis a line: the text alone, or with --scores the score, a tab and the text.
    With --alignments follows, behind a tab, which source token, word or character each one of the
    target came from, as in 0-0 1-2; both are counted from 0, special tokens and white space not.
    Says on standard error with which seed the server drew, unless --seed chose it.
    """
    options = GenerateOptions(
        **{name: value for name, value in decoding.items() if value not in (None, ())}  # type: ignore[typeddict-item]
    )
    if scores:
        options["return_scores"] = True
    if stream:
        is_several = decoding["num_return_sequences"] is not None
        refuse_together(
            "--stream",
            ("--scores", scores),
            ("--num-return-sequences", is_several),
            ("--alignments", alignments is not None),
        )
    if "top_log_probability_count" in options and (stream or not call.as_json):
        raise click.UsageError(
            "--top-log-probability-count is printed with --json and without --stream only"
        )
    texts = read_inputs(inputs)
    with call.connect() as client:
        if stream:
            for number, text in enumerate(texts, 1):
                pieces = client.generate_stream(
                    text,
                    model=call.model,
                    version=call.version,
                    source_language=source_language,
                    target_language=target_language,
                    target_prefix=target_prefix,
                    truncate=truncate,
                    priority=priority,
                    **options,
                )
                _print_stream(pieces, as_json=call.as_json)
                note_truncation(number, pieces.result.truncated_token_count)
                _note_seed(number, pieces.result, options)
            return
        generations = client.generate(
            texts,
            model=call.model,
            version=call.version,
            source_language=source_language,
            target_language=target_language,
            target_prefix=target_prefix,
            truncate=truncate,
            return_alignments=alignments is not None,
            priority=priority,
            **options,
        )
    for number, (text, generation) in enumerate(zip(texts, generations, strict=True), 1):
        if call.as_json:
            _print_record(text, generation)
        else:
            _print_hypotheses(text, generation, scores=scores, alignments=alignments)
        note_truncation(number, generation.truncated_token_count)
        _note_seed(number, generation, options)


def _print_stream(stream: GenerationStream, *, as_json: bool) -> None:
    with stream as pieces:
        for piece in pieces:
            if as_json:
                click.echo(json.dumps(dataclasses.asdict(piece), ensure_ascii=False))
            else:
                click.echo(piece.text, nl=False)
    if not as_json:
        click.echo()


def _print_record(text: str, generation: Generation) -> None:
    record = {"input": text, **dataclasses.asdict(generation)}
    click.echo(json.dumps(record, ensure_ascii=False, default=np.ndarray.tolist))


def _print_hypotheses(
    text: str,
    generation: Generation,
    *,
    scores: bool,
    alignments: Literal["tokens", "words", "characters"] | None,
) -> None:
    for hypothesis in generation.hypotheses:
        parts = [hypothesis.text]
        if scores and hypothesis.score is not None:
            parts.insert(0, f"{hypothesis.score:.4f}")
        if alignments is not None and hypothesis.alignment is not None:
            if alignments == "tokens":
                parts.append(to_pharaoh(hypothesis.alignment))
            else:
                texts = (text, hypothesis.text)
                parts.append(to_pharaoh(hypothesis.alignment, texts, alignments))
        click.echo("\t".join(parts))
