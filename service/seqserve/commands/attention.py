"""The command ``attend``: what a model looks at."""

import collections
import dataclasses
import json
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any

import click
import numpy as np

from seqserve.client import AttendOptions, Attention, AttentionWeights, Client, Priority
from seqserve.client.attention_results import AttentionKind
from seqserve.client.results import Token
from seqserve.commands.attention_picture import Matrices
from seqserve.commands.invocation import (
    PRIORITY,
    Call,
    calling,
    note_truncation,
    refuse_together,
)
from seqserve.commands.picture_file import check_path, write_picture

_KINDS = ("encoder_self", "decoder_self", "cross")
_TO_ONE = ("mean", "max", "rollout")
"""Reductions that leave one matrix, which can be printed in lines."""
_NUM_SHOWN = 3
"""Tokens that are printed of those a token attends to."""


@click.command()
@click.argument("source")
@calling
@click.option("--target-text", default="", help="Target; by default what the model generates.")
@click.option("--pair", default="", help="Second text, for models that read pairs.")
@click.option("--source-language", default="", help="Language of the source.")
@click.option("--target-language", default="", help="Language of the target.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(_KINDS),
    help="Who attends to what; may be given several times. By default cross, of encoders and as "
    "rollout encoder_self; with --json all.",
)
@click.option(
    "--layer", "layers", type=int, multiple=True, help="From 0; may be given several times."
)
@click.option(
    "--head", "heads", type=int, multiple=True, help="From 0; may be given several times."
)
@click.option(
    "--reduction",
    type=click.Choice(["none", "mean_heads", *_TO_ONE]),
    help="What is made of layers and heads; by default their mean, with --json none.",
)
@click.option("--prompt-name", help="Prompt to put before the source; empty for none.")
@click.option("--truncate", is_flag=True, help="Cut a source that is too long at its end.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Draw heat maps into this file instead of printing: .svg, .html for a page, or .png, for "
    "which install seqserve[picture].",
)
@PRIORITY
def attend(
    call: Call,
    source: str,
    target_text: str,
    pair: str,
    source_language: str,
    target_language: str,
    kinds: tuple[Any, ...],
    layers: tuple[int, ...],
    heads: tuple[int, ...],
    reduction: Any,
    prompt_name: str | None,
    truncate: bool,
    out: Path | None,
    priority: Priority,
) -> None:
    """Tells what each token attends to when a model reads SOURCE and writes a target.

    Prints a line for each row: the token, and the tokens it attends to most with their weights,
    with tabs between them, and with their index, from 0, where there are several of one text; or
    with --json an object with all tokens and weights; or draws them with --out, several layers and
    heads beside each other.
    """
    if out is not None:
        refuse_together("--out", ("--json", call.as_json))
        check_path(out)
    elif not call.as_json and reduction not in (None, *_TO_ONE):
        raise click.UsageError(
            f"--reduction {reduction} leaves several matrices, which are printed with --json only; "
            f"choose one of {', '.join(_TO_ONE)}, or add --json"
        )
    with call.connect() as client:
        if not kinds and not call.as_json:
            # Layers that are named must be there in every kind that is asked for.
            kinds = (_default_kind(client, call, is_rollout=reduction == "rollout"),)
        options = AttendOptions(
            model=call.model,
            version=call.version,
            target=target_text,
            text_pair=pair,
            source_language=source_language,
            target_language=target_language,
            kinds=kinds,
            layers=layers,
            heads=heads,
            reduction=reduction or ("none" if call.as_json else "mean"),
            truncate=truncate,
            priority=priority,
            prompt_name=prompt_name,
        )
        found = client.attend(source, **options)
    if call.as_json:
        click.echo(json.dumps(_to_record(found), ensure_ascii=False))
    elif out is not None:
        _draw(found, kinds, out)
    else:
        _print(found, kinds)
    note_truncation(1, found.truncated_token_count)


def _default_kind(client: Client, call: Call, *, is_rollout: bool) -> AttentionKind:
    """What the target came from; of encoders and of rollouts, what a text sees of itself."""
    settings = client.get_model(call.model, call.version).attention
    if settings is None or not settings.decoder_layer_count:
        # A model that cannot tell its attention says so when it is asked.
        return "encoder_self"
    if not is_rollout:
        return "cross"
    return "encoder_self" if settings.encoder_layer_count else "decoder_self"


def _draw(found: Attention, kinds: tuple[str, ...], out: Path) -> None:
    """Writes a picture of the matrices of each kind."""
    blocks = [Matrices(kind, getattr(found, kind), *_axes(found, kind)) for kind in kinds]
    write_picture(out, blocks, found.source_text, found.target_text)
    click.echo(f"wrote {out}")


def _print(found: Attention, kinds: tuple[str, ...]) -> None:
    """Prints the matrix of each kind, with its name above if there are several."""
    for kind in kinds:
        weights: AttentionWeights | None = getattr(found, kind)
        assert weights is not None
        if len(kinds) > 1:
            click.echo(f"{kind}:")
        rows, columns = _axes(found, kind)
        names = _tell_apart(columns)
        for token, row in zip(rows, weights.weights[0, 0], strict=True):
            best = np.argsort(-row, kind="stable")[:_NUM_SHOWN]
            shown = [f"{names[index]} {row[index]:.3f}" for index in best]
            click.echo("\t".join([token.text, *shown]))


def _tell_apart(tokens: Items[Token]) -> list[str]:
    """Their texts, with the index where a text is there several times: ``o[2]``."""
    counts = collections.Counter(token.text for token in tokens)
    return [
        f"{token.text}[{index}]" if counts[token.text] > 1 else token.text
        for index, token in enumerate(tokens)
    ]


def _axes(found: Attention, kind: str) -> tuple[tuple[Token, ...], tuple[Token, ...]]:
    """What rows and columns of a kind stand for."""
    match kind:
        case "encoder_self":
            return found.source_tokens, found.source_tokens
        case "decoder_self":
            return found.target_tokens, found.decoder_input_tokens
    return found.target_tokens, found.source_tokens


def _to_record(found: Attention) -> dict[str, Any]:
    """All of it, as JSON takes it."""
    record: dict[str, Any] = {
        field.name: getattr(found, field.name) for field in dataclasses.fields(found)
    }
    for name, value in record.items():
        match value:
            case AttentionWeights(weights=weights, layers=layers, heads=heads):
                record[name] = {"layers": layers, "heads": heads, "weights": weights.tolist()}
            case tuple():
                record[name] = [dataclasses.asdict(token) for token in value]
    return record
