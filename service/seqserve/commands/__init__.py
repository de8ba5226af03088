"""The client's commands, one for each kind of call."""

import click

from seqserve.commands.attention import attend
from seqserve.commands.bench import bench
from seqserve.commands.embedding import embed
from seqserve.commands.generation import generate
from seqserve.commands.model import load, models, unload
from seqserve.commands.prediction import classify, fill_mask, rerank, tag
from seqserve.commands.scoring import score
from seqserve.commands.tokenization import tokenize

COMMANDS: list[click.Command] = [
    generate,
    score,
    attend,
    embed,
    classify,
    tag,
    rerank,
    fill_mask,
    models,
    load,
    unload,
    tokenize,
    bench,
]
