"""The commands ``models``, ``load`` and ``unload``: what a server serves, and how that changes."""

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table

from seqserve.client import ModelInfo
from seqserve.commands.invocation import Call, calling


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
            f"{info.version} ({', '.join(info.labels)})" if info.labels else info.version,
            ", ".join(info.tasks),
            info.family,
            info.dtype,
            str(info.max_source_length),
            _describe(info),
        )
    Console().print(table)


@click.command()
@calling
def load(call: Call) -> None:
    """Has a server load the version of its store that --model and --version name.

    The server tries it in a process of its own, opens it, and then serves it. It must allow this:
    seqserve serve --allow-model-control.
    """
    _check_named(call)
    with call.connect() as client:
        info = client.load_model(call.model, call.version)
    if call.as_json:
        click.echo(json.dumps(dataclasses.asdict(info), ensure_ascii=False))
    else:
        click.echo(f"loaded {info.name}/{info.version}")


@click.command()
@calling
def unload(call: Call) -> None:
    """Has a server unload the version that --model and --version name.

    Requests that have begun are answered first. The server must allow this: seqserve serve
    --allow-model-control.
    """
    _check_named(call)
    with call.connect() as client:
        client.unload_model(call.model, call.version)
    if call.as_json:
        click.echo(json.dumps({"name": call.model, "version": call.version}))
    else:
        click.echo(f"unloaded {call.model}/{call.version}")


def _check_named(call: Call) -> None:
    """Refuses to guess which version is meant."""
    if not (call.model and call.version):
        raise click.UsageError("say which version: give --model and --version")


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
        numbers = "numbers" if embedding.sparse is None else "sparse weights"
        details.append(f"{embedding.embedding_size} {numbers}, pooling {embedding.pooling}")
    details += _describe_head(info)
    for prompted in (info.embedding, info.reranking):
        if prompted is not None and prompted.prompts:
            details.append(f"prompts {', '.join(sorted(prompted.prompts))}")
    return ", ".join(details)


def _describe_head(info: ModelInfo) -> list[str]:
    """What the head of a model returns, in a few words; empty without a head."""
    details = []
    for labelled in (info.classification, info.token_classification):
        if labelled is not None:
            details.append(f"labels {', '.join(labelled.labels)}")
    if info.reranking is not None:
        details.append(f"scores by {info.reranking.activation}")
    if info.mask_filling is not None:
        details.append(f"mask {info.mask_filling.mask_token}")
    return details
