"""One call of the command line: the options that commands share, its connection, its inputs."""

import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from seqserve.client import AsyncClient, CallError, Client

_Client = TypeVar("_Client", Client, AsyncClient)

_CALL_OPTIONS = (
    click.option("--model", default="", help="Name of the model; not needed if there is one."),
    click.option(
        "--version",
        default="",
        help="Version or label of the model; by default the stable one, or the newest.",
    ),
    click.option(
        "--target",
        default="localhost:50051",
        envvar="SEQSERVE_TARGET",
        show_default=True,
        help="Address of the server.",
    ),
    click.option("--token", envvar="SEQSERVE_TOKEN", help="Bearer token."),
    click.option(
        "--token-in-clear",
        is_flag=True,
        help="Send the token to another machine without --tls, as where a mesh encrypts.",
    ),
    click.option("--caller", default="", help="Name to share the server with others under."),
    click.option("--tls/--no-tls", default=False, help="Connect with TLS."),
    click.option(
        "--ca",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="Root certificates (PEM) for TLS instead of the system's.",
    ),
    click.option(
        "--cert",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="Certificate (PEM chain) of this caller for mutual TLS, with --key.",
    ),
    click.option(
        "--key",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="Key (PEM) of --cert.",
    ),
    click.option(
        "--timeout", type=float, default=60.0, show_default=True, help="Deadline in seconds."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line."),
)

PRIORITY = click.option(
    "--priority",
    type=click.Choice(["low", "normal", "high"]),
    default="normal",
    show_default=True,
    help="Whose turn comes first while inputs wait.",
)


TRUNCATION_OPTIONS = (
    click.option("--truncate", is_flag=True, help="Cut inputs that are too long."),
    click.option(
        "--truncation-direction",
        type=click.Choice(["right", "left"]),
        help="Which side is cut, with --truncate; the end by default.",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """The options that all commands share."""

    model: str
    version: str
    target: str
    token: str | None
    token_in_clear: bool
    caller: str
    tls: bool
    ca: Path | None
    cert: Path | None
    key: Path | None
    timeout: float
    as_json: bool

    @contextlib.contextmanager
    def connect(self) -> Iterator[Client]:
        """A client; a failed call becomes one line and exit code 1."""
        with self.reporting(), self._open(Client) as client:
            yield client

    def open_async(self, **connection: Any) -> AsyncClient:
        """A client for the running event loop, with further fields of its connection."""
        return self._open(AsyncClient, **connection)

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """Makes one line of a failed call, and exit code 1."""
        try:
            yield
        except CallError as error:
            hint = ""
            if error.code == "UNAVAILABLE":
                hint = f" (is a server at {self.target}? start one with: seqserve serve)"
            click.echo(f"error: {error}{hint}", err=True)
            sys.exit(1)

    def _open(self, kind: type[_Client], **connection: Any) -> _Client:
        """The client; options that it refuses become one line and exit code 2.

        What it warns of becomes a line on standard error.
        """
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                client = kind(
                    self.target,
                    timeout_seconds=self.timeout,
                    token=self.token,
                    allows_token_in_clear=self.token_in_clear,
                    caller=self.caller,
                    tls=self.tls,
                    root_certificates=_read(self.ca),
                    certificate=_read(self.cert),
                    private_key=_read(self.key),
                    **connection,
                )
            for warning in caught:
                click.echo(f"warning: {warning.message}", err=True)
            return client
        except ValueError as error:
            hint = (
                "the options are --tls, --ca, --cert, --key, --caller, --token-in-clear, and "
                "--token or SEQSERVE_TOKEN"
            )
            click.echo(f"error: {error} ({hint})", err=True)
            sys.exit(2)


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def with_options(options: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    """Adds options to a command, in their order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def calling(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the shared options and hands them over as one ``Call``."""

    def run(**values: Any) -> None:
        shared = {field.name: values.pop(field.name) for field in dataclasses.fields(Call)}
        command(Call(**shared), **values)

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    # click keeps options on the function until it becomes a command.
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Callable[..., None] = with_options(_CALL_OPTIONS)(run)
    return decorated


def note_truncation(number: int, count: int) -> None:
    """Says on standard error that an input was cut."""
    if count:
        click.echo(f"note: {count} tokens of input {number} were cut", err=True)


def read_inputs(inputs: tuple[str, ...]) -> list[str]:
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


def refuse_together(first: str, *others: tuple[str, bool]) -> None:
    """Refuses options that would be ignored next to another one."""
    for name, is_given in others:
        if is_given:
            raise click.UsageError(f"{name} has no effect with {first}; leave one of them out")
