"""The client's commands: ``generate``, ``embed``, ``models``, ``tokenize``."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seqserve.client import (
    CallError,
    Client,
    Embeddings,
    GenerateOptions,
    Generation,
    GenerationStream,
    ModelInfo,
)

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
)
_CALL_OPTIONS = (
    click.option("--model", default="", help="Name of the model; not needed if there is one."),
    click.option("--version", default="", help="Version of the model; the newest by default."),
    click.option(
        "--target",
        default="localhost:50051",
        envvar="SEQSERVE_TARGET",
        show_default=True,
        help="Address of the server.",
    ),
    click.option("--token", envvar="SEQSERVE_TOKEN", help="Bearer token."),
    click.option("--tls/--no-tls", default=False, help="Connect with TLS."),
    click.option(
        "--ca",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="Root certificates (PEM) for TLS instead of the system's.",
    ),
    click.option(
        "--timeout", type=float, default=60.0, show_default=True, help="Deadline in seconds."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line."),
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """The options that all commands share."""

    model: str
    version: str
    target: str
    token: str | None
    tls: bool
    ca: Path | None
    timeout: float
    as_json: bool

    @contextlib.contextmanager
    def connect(self) -> Iterator[Client]:
        """A client; a failed call becomes one line and exit code 1."""
        try:
            with self._open() as client:
                yield client
        except CallError as error:
            hint = ""
            if error.code == "UNAVAILABLE":
                hint = f" (is a server at {self.target}? start one with: seqserve serve)"
            click.echo(f"error: {error}{hint}", err=True)
            sys.exit(1)

    def _open(self) -> Client:
        """The client; options that it refuses become one line and exit code 2."""
        try:
            return Client(
                self.target,
                timeout_seconds=self.timeout,
                token=self.token,
                tls=self.tls,
                root_certificates=self.ca.read_bytes() if self.ca else None,
            )
        except ValueError as error:
            hint = "the options are --tls, --ca, and --token or SEQSERVE_TOKEN"
            click.echo(f"error: {error} ({hint})", err=True)
            sys.exit(2)


def _with(options: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _calling(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the shared options and hands them over as one ``_Call``."""

    def run(**values: Any) -> None:
        shared = {field.name: values.pop(field.name) for field in dataclasses.fields(_Call)}
        command(_Call(**shared), **values)

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    # click keeps options on the function until it becomes a command.
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Callable[..., None] = _with(_CALL_OPTIONS)(run)
    return decorated


def _read_inputs(inputs: tuple[str, ...]) -> list[str]:
    """The arguments, or the lines of standard input if there are none or only ``-``.

    Lines end with a line feed and nothing else, so that answers line up with lines.
    """
    if inputs and inputs != ("-",):
        return list(inputs)
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"standard input is not UTF-8: {error}") from error
    if not text:
        raise click.UsageError("give a text as an argument or lines on standard input")
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise click.UsageError(
                f"line {number} of standard input is blank, but every line is an input; remove it"
            )
    return lines


def _refuse_together(first: str, *others: tuple[str, bool]) -> None:
    """Refuses options that would be ignored next to another one."""
    for name, is_given in others:
        if is_given:
            raise click.UsageError(f"{name} has no effect with {first}; leave one of them out")


def _note_truncation(number: int, count: int) -> None:
    """Says on standard error that an input was cut."""
    if count:
        click.echo(f"note: {count} tokens of input {number} were cut", err=True)


@click.command()
@click.argument("inputs", nargs=-1)
@_calling
@_with(_DECODING_OPTIONS)
@click.option("--source-language", default="", help="Language of the inputs.")
@click.option("--target-language", default="", help="Language to generate.")
@click.option("--truncate", is_flag=True, help="Cut inputs that are too long at their end.")
@click.option("--stream", is_flag=True, help="Print pieces as they are decided.")
@click.option("--scores", is_flag=True, help="Print the score of each hypothesis.")
def generate(
    call: _Call,
    inputs: tuple[str, ...],
    source_language: str,
    target_language: str,
    truncate: bool,
    stream: bool,
    scores: bool,
    **decoding: Any,
) -> None:
    """Generates a target from each INPUT (default: lines of standard input).

    Prints one hypothesis a line: the text alone, or with --scores the score, a tab and the text.
    """
    options = GenerateOptions(
        **{name: value for name, value in decoding.items() if value is not None}  # type: ignore[typeddict-item]
    )
    if scores:
        options["return_scores"] = True
    if stream:
        is_several = decoding["num_return_sequences"] is not None
        _refuse_together("--stream", ("--scores", scores), ("--num-return-sequences", is_several))
    texts = _read_inputs(inputs)
    with call.connect() as client:
        if stream:
            for number, text in enumerate(texts, 1):
                pieces = client.generate_stream(
                    text,
                    model=call.model,
                    version=call.version,
                    source_language=source_language,
                    target_language=target_language,
                    truncate=truncate,
                    **options,
                )
                _print_stream(pieces, as_json=call.as_json)
                _note_truncation(number, pieces.result.truncated_token_count)
            return
        generations = client.generate(
            texts,
            model=call.model,
            version=call.version,
            source_language=source_language,
            target_language=target_language,
            truncate=truncate,
            **options,
        )
    for number, (text, generation) in enumerate(zip(texts, generations, strict=True), 1):
        _print_generation(text, generation, scores=scores, as_json=call.as_json)
        _note_truncation(number, generation.truncated_token_count)


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
@click.argument("inputs", nargs=-1)
@_calling
@click.option(
    "--normalize/--no-normalize", default=None, help="Scale to length 1; default: the model's."
)
@click.option("--truncate", is_flag=True, help="Cut inputs that are too long at their end.")
@click.option("--similarity", is_flag=True, help="Print the cosine similarities as a table.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the vectors to this .npy file instead of printing them.",
)
def embed(
    call: _Call,
    inputs: tuple[str, ...],
    normalize: bool | None,
    truncate: bool,
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
    texts = _read_inputs(inputs)
    with call.connect() as client:
        embeddings = client.embed(
            texts, model=call.model, version=call.version, normalize=normalize, truncate=truncate
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
@_calling
def models(call: _Call) -> None:
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
@_calling
def tokenize(call: _Call, inputs: tuple[str, ...]) -> None:
    """Prints the tokens of each INPUT (default: lines of standard input)."""
    texts = _read_inputs(inputs)
    with call.connect() as client:
        tokenizations = client.tokenize(texts, model=call.model, version=call.version)
    for text, tokens in zip(texts, tokenizations, strict=True):
        if call.as_json:
            record = {"input": text, "tokens": [dataclasses.asdict(token) for token in tokens]}
            click.echo(json.dumps(record, ensure_ascii=False))
        else:
            click.echo(" ".join(f"{token.text}:{token.token_id}" for token in tokens))


COMMANDS: list[click.Command] = [generate, embed, models, tokenize]
