"""The client's commands: ``generate``, ``score``, ``embed``, ``models``, ``tokenize``."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seqserve.client import (
    Embeddings,
    GenerateOptions,
    Generation,
    GenerationStream,
    ModelInfo,
    Priority,
)
from seqserve.invocation import Call, calling, read_inputs, with_options

_DECODING_OPTIONS = (
    click.option("--max-new-tokens", type=int, help="Limit of new tokens."),
    click.option("--num-beams", type=int, help="Beams; 1 is greedy search."),
    click.option("--num-return-sequences", type=int, help="Hypotheses to return for each input."),
    click.option("--length-penalty", type=float, help="Exponent of the length in beam scores."),
    click.option(
        "--early-stopping/--no-early-stopping",
        default=None,
        help="End beam search with the first finished beams.",
    ),
    click.option("--min-new-tokens", type=int, help="Tokens before which no target ends."),
    click.option("--no-repeat-ngram-size", type=int, help="Size of n-grams never repeated."),
    click.option("--repetition-penalty", type=float, help="Above 1 discourages repetition."),
    click.option("--forced-bos-token-id", type=int, help="Token every target begins with."),
    click.option("--max-time", type=float, help="Seconds after which to end with what there is."),
    click.option("--do-sample/--no-do-sample", default=None, help="Draw tokens at random."),
    click.option("--temperature", type=float, help="Above 1 makes rare tokens more likely."),
    click.option("--top-k", type=int, help="Draw among this many tokens; 0 is off."),
    click.option("--top-p", type=float, help="Draw among tokens of this probability; 1 is off."),
    click.option("--seed", type=int, help="Draw the same again; by default the server's choice."),
    click.option(
        "--suppressed-token-id",
        "suppressed_token_ids",
        type=int,
        multiple=True,
        help="Token never generated; may be given several times.",
    ),
    click.option(
        "--suppressed-sequence",
        "suppressed_sequences",
        multiple=True,
        help="Text never generated; may be given several times.",
    ),
    click.option(
        "--top-log-probability-count",
        type=int,
        help="Most probable tokens to print at each position, with --json.",
    ),
    click.option(
        "--return-alternatives/--no-return-alternatives",
        default=None,
        help="Begin each hypothesis with another token.",
    ),
    click.option(
        "--min-alternative-probability", type=float, help="Of the first token of an alternative."
    ),
    click.option(
        "--stop-sequence",
        "stop_sequences",
        multiple=True,
        help="Text that ends a target; may be given several times.",
    ),
    click.option(
        "--include-stop-sequence/--no-include-stop-sequence",
        default=None,
        help="End texts with the stop sequence, not before it.",
    ),
)
_PRIORITY = click.option(
    "--priority",
    type=click.Choice(["low", "normal", "high"]),
    default="normal",
    show_default=True,
    help="Whose turn comes first while inputs wait.",
)


def _refuse_together(first: str, *others: tuple[str, bool]) -> None:
    """Refuses options that would be ignored next to another one."""
    for name, is_given in others:
        if is_given:
            raise click.UsageError(f"{name} has no effect with {first}; leave one of them out")


def _note_truncation(number: int, count: int) -> None:
    """Says on standard error that an input was cut."""
    if count:
        click.echo(f"note: {count} tokens of input {number} were cut", err=True)


def _note_seed(number: int, generation: Generation, options: GenerateOptions) -> None:
    """Says on standard error how to draw the same again."""
    if generation.seed is not None and "seed" not in options:
        click.echo(f"note: input {number} was drawn with --seed {generation.seed}", err=True)


@click.command()
@click.argument("inputs", nargs=-1)
@calling
@with_options(_DECODING_OPTIONS)
@click.option("--source-language", default="", help="Language of the inputs.")
@click.option("--target-language", default="", help="Language to generate.")
@click.option("--target-prefix", default="", help="Text every target begins with.")
@click.option("--truncate", is_flag=True, help="Cut inputs that are too long at their end.")
@_PRIORITY
@click.option("--stream", is_flag=True, help="Print pieces as they are decided.")
@click.option("--scores", is_flag=True, help="Print the score of each hypothesis.")
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
    **decoding: Any,
) -> None:
    """Generates a target from each INPUT (default: lines of standard input).

    Prints one hypothesis a line: the text alone, or with --scores the score, a tab and the text.
    Says on standard error with which seed the server drew, unless --seed chose it.
    """
    options = GenerateOptions(
        **{name: value for name, value in decoding.items() if value not in (None, ())}  # type: ignore[typeddict-item]
    )
    if scores:
        options["return_scores"] = True
    if stream:
        is_several = decoding["num_return_sequences"] is not None
        _refuse_together("--stream", ("--scores", scores), ("--num-return-sequences", is_several))
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
                _note_truncation(number, pieces.result.truncated_token_count)
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
            priority=priority,
            **options,
        )
    for number, (text, generation) in enumerate(zip(texts, generations, strict=True), 1):
        _print_generation(text, generation, scores=scores, as_json=call.as_json)
        _note_truncation(number, generation.truncated_token_count)
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


def _print_generation(text: str, generation: Generation, *, scores: bool, as_json: bool) -> None:
    if as_json:
        record = {"input": text, **dataclasses.asdict(generation)}
        click.echo(json.dumps(record, ensure_ascii=False))
        return
    for hypothesis in generation.hypotheses:
        prefix = f"{hypothesis.score:.4f}\t" if scores and hypothesis.score is not None else ""
        click.echo(f"{prefix}{hypothesis.text}")


@click.command()
@click.argument("source")
@click.argument("targets", nargs=-1, required=True)
@calling
@click.option("--source-language", default="", help="Language of the source.")
@click.option("--target-language", default="", help="Language of the targets.")
@click.option("--truncate", is_flag=True, help="Cut a source that is too long at its end.")
def score(
    call: Call,
    source: str,
    targets: tuple[str, ...],
    source_language: str,
    target_language: str,
    truncate: bool,
) -> None:
    """Tells how probable each of TARGETS is for SOURCE.

    Prints one target a line: its log-probability, the mean of its tokens, and the text, with tabs
    between them; or with --json an object with its tokens.
    """
    with call.connect() as client:
        (scoring,) = client.score(
            source,
            targets,
            model=call.model,
            version=call.version,
            source_language=source_language,
            target_language=target_language,
            truncate=truncate,
        )
    for target, one in zip(targets, scoring.scores, strict=True):
        if call.as_json:
            record = {"source": source, "target": target, **dataclasses.asdict(one)}
            click.echo(json.dumps(record, ensure_ascii=False))
        else:
            click.echo(f"{one.total_log_probability:.4f}\t{one.mean_log_probability:.4f}\t{target}")
    _note_truncation(1, scoring.truncated_token_count)


@click.command()
@click.argument("inputs", nargs=-1)
@calling
@click.option(
    "--normalize/--no-normalize", default=None, help="Scale to length 1; default: the model's."
)
@click.option("--truncate", is_flag=True, help="Cut inputs that are too long at their end.")
@_PRIORITY
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
) -> None:
    """Embeds each INPUT (default: lines of standard input).

    Prints one JSON array a line, or with --json an object with the text and token counts.
    """
    if similarity:
        is_written = output is not None
        _refuse_together("--similarity", ("--json", call.as_json), ("--output", is_written))
    if output is not None:
        _refuse_together("--output", ("--json", call.as_json))
    texts = read_inputs(inputs)
    with call.connect() as client:
        embeddings = client.embed(
            texts,
            model=call.model,
            version=call.version,
            normalize=normalize,
            truncate=truncate,
            priority=priority,
        )
    for number, count in enumerate(embeddings.truncated_token_counts, 1):
        _note_truncation(number, count)
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


@click.command()
@calling
def models(call: Call) -> None:
    """Lists the served models, or describes the one that --model and --version name."""
    with call.connect() as client:
        if call.model or call.version:
            infos = [client.get_model(call.model, call.version)]
        else:
            infos = client.list_models()
    if call.as_json:
        for info in infos:
            click.echo(json.dumps(dataclasses.asdict(info), ensure_ascii=False))
        return
    table = Table("model", "version", "tasks", "family", "dtype", "max source", "details")
    for info in infos:
        table.add_row(
            info.name,
            info.version,
            ", ".join(info.tasks),
            info.family,
            info.dtype,
            str(info.max_source_length),
            _describe(info),
        )
    Console().print(table)


def _describe(info: ModelInfo) -> str:
    """The settings of a model in a few words."""
    details = []
    if (generation := info.generation) is not None:
        details.append(f"up to {generation.max_target_length} new tokens")
        details.append(f"{generation.num_beams} beam(s)")
        if generation.source_languages or generation.target_languages:
            num_source, num_target = (
                len(generation.source_languages),
                len(generation.target_languages),
            )
            details.append(f"{num_source or 'any'} to {num_target or 'any'} languages")
    if (embedding := info.embedding) is not None:
        details.append(f"{embedding.embedding_size} numbers, pooling {embedding.pooling}")
    return ", ".join(details)


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


COMMANDS: list[click.Command] = [generate, score, embed, models, tokenize]
