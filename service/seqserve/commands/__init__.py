"""The client's commands: ``generate``, ``score``, ``embed``, ``models``, ``tokenize``."""

import click

from seqserve.commands.embedding import embed
from seqserve.commands.generation import generate
from seqserve.commands.model import models
from seqserve.commands.scoring import score
from seqserve.commands.tokenization import tokenize

COMMANDS: list[click.Command] = [generate, score, embed, models, tokenize]
