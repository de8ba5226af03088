"""The command ``models``: what a server serves."""

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
