"""The command ``score``: how probable given targets are."""

import dataclasses
import json

import click

from seqserve.client import Priority
from seqserve.commands.invocation import PRIORITY, Call, calling, note_truncation


@click.command()
@click.argument("source")
@click.argument("targets", nargs=-1, required=True)
@calling
@click.option("--source-language", default="", help="Language of the source.")
@click.option("--target-language", default="", help="Language of the targets.")
@click.option("--truncate", is_flag=True, help="Cut a source that is too long at its end.")
@PRIORITY
def score(
    call: Call,
    source: str,
    targets: tuple[str, ...],
    source_language: str,
    target_language: str,
    truncate: bool,
    priority: Priority,
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
            priority=priority,
        )
    for target, one in zip(targets, scoring.scores, strict=True):
        if call.as_json:
            record = {"source": source, "target": target, **dataclasses.asdict(one)}
            click.echo(json.dumps(record, ensure_ascii=False))
        else:
            click.echo(f"{one.total_log_probability:.4f}\t{one.mean_log_probability:.4f}\t{target}")
    note_truncation(1, scoring.truncated_token_count)
