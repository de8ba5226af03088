"""Serves the trained variants by the one server, and measures them side by side.

All are models of one server, in a process of its own, and are asked in turn in every round, so that
what the machine does meanwhile is shared out among them.
"""

import dataclasses
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from seqserve.attention_kind import AttentionKind
from seqserve.client import Client
from seqserve.manifest import read_manifest
from seqserve_export.attention_recording import recording_attention
from seqserve_export.checkpoint import load_checkpoint
from seqserve_export.demo_server import running_server
from seqserve_export.exporter import export_model
from seqserve_export.recipes.comparison_evaluation import Answers
from seqserve_export.recipes.comparison_task import Question
from seqserve_export.recipes.comparison_training import Run
from seqserve_export.transformer import Transformer
from seqserve_export.variants.catalogue import CATALOGUE
from seqserve_export.variants.lettering import render, to_tokens
from seqserve_export.verification import make_row

_CALL_SIZE = 256
_NUM_ATTENDED = 3
_NUMBER_BYTES = 4
_SHOWN_WORD, _SHOWN_IMAGE = "transformer", "picture"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured."""

    num_rounds: int = 5
    num_singles: int = 40
    """Calls of one source in a round."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """A trained variant with the test and what torch answers."""

    run: Run
    questions: Sequence[Question]
    answers: Answers

    @property
    def is_image(self) -> bool:
        """Whether it reads images of words."""
        return CATALOGUE[self.run.name].is_image

    @property
    def sources(self) -> list[list[int]]:
        """Token ids of the questions."""
        return [question.example.source for question in self.questions]


def export_run(run: Run, store: Path) -> None:
    """Exports the checkpoint of a run, unless it is in the store."""
    if not (store / run.name).is_dir():
        export_model(run.checkpoint, store, name=run.name, is_explained=True)


def measure_serving(
    contestants: Sequence[Contestant], store: Path, extent: Extent, console: Console
) -> dict[str, dict[str, Any]]:
    """Measures the models of a store through the server, by the names of the variants."""
    found: dict[str, dict[str, Any]] = {}
    with running_server(store, {}, console) as server, Client(server.target) as client:
        for contestant in contestants:
            name = contestant.run.name
            console.print(f"answers of {name}")
            found[name] = describe_memory(store / name / "1") | _compare(client, contestant)
        times: dict[str, list[dict[str, Any]]] = {name: [] for name in found}
        for number in range(extent.num_rounds):
            console.print(f"round {number + 1} of {extent.num_rounds}")
            for contestant in contestants:
                measured = _measure_round(client, contestant, extent)
                times[contestant.run.name].append(measured)
    for name, rounds in times.items():
        singles = sorted(seconds for one in rounds for seconds in one["latency_seconds"])
        found[name] |= {
            "tokens_per_second": statistics.median(one["tokens_per_second"] for one in rounds),
            "tokens_per_second_of_rounds": [one["tokens_per_second"] for one in rounds],
            "latency_p50_seconds": statistics.median(singles),
            "latency_p95_seconds": singles[int(0.95 * (len(singles) - 1))],
        }
    return found


def describe_memory(folder: Path) -> dict[str, Any]:
    """What the weights take, and each token in the cache."""
    manifest = read_manifest(folder)
    record = manifest.generation
    assert record is not None
    num_numbers = 2 * record.num_layers * record.num_heads * record.head_size
    return {
        "weight_bytes": manifest.files["weights.data"].size_bytes,
        "cache_bytes_per_token": num_numbers * _NUMBER_BYTES,
        "is_batch_invariant": manifest.is_batch_invariant,
        "largest_difference": max(
            one.max_abs_difference
            for one in manifest.verification
            if one.check.startswith(("encode: torch", "decode: torch", "attention: torch"))
        ),
    }


def _compare(client: Client, contestant: Contestant) -> dict[str, Any]:
    """Compares answers and attention of the server with those of torch."""
    name = contestant.run.name
    served = [
        [token for token in generation.hypotheses[0].token_ids if token > 3]
        for start in range(0, len(contestant.sources), _CALL_SIZE)
        for generation in client.generate(
            contestant.sources[start : start + _CALL_SIZE], model=name
        )
    ]
    expected = [[token for token in answer if token > 3] for answer in contestant.answers.tokens]
    num_equal = sum(one == other for one, other in zip(served, expected, strict=True))
    model = load_checkpoint(contestant.run.checkpoint).model
    difference, shown = None, None
    if model.attention_layers:
        shown = attend_word(client, name, is_image=contestant.is_image)
        difference = max(
            compare_attention(client, name, model, source)
            for source in contestant.sources[:_NUM_ATTENDED]
        )
    return {
        "num_answers": len(served),
        "num_equal_answers": num_equal,
        "attention_kinds": [str(kind) for kind in model.attention_layers],
        "attention_difference": difference,
        "shown": shown,
    }


def attend_word(client: Client, name: str, *, is_image: bool) -> dict[str, Any]:
    """Cross-attention of one word, the mean over layers and heads."""
    source: str | list[int] = _SHOWN_WORD
    if is_image:
        source = to_tokens(render(_SHOWN_IMAGE, random.Random(1)))
    found = client.attend(source, model=name, kinds=["cross"], reduction="mean")
    assert found.cross is not None
    return {
        "rows": [token.text for token in found.target_tokens],
        "columns": [token.text for token in found.source_tokens],
        "weights": [
            [round(float(weight), 3) for weight in row] for row in found.cross.weights[0, 0]
        ],
    }


@torch.inference_mode()
def compare_attention(client: Client, name: str, model: Transformer, source: list[int]) -> float:
    """The largest difference of weights that ``Attend`` tells from those of torch."""
    found = client.attend(source, model=name)
    tokens, lengths = make_row(source)
    target, target_lengths = make_row([token.token_id for token in found.decoder_input_tokens])
    with recording_attention() as record:
        model(tokens, lengths, target, target_lengths)
    weights = iter(model.sort_attention(record, len(source)))
    told: Mapping[AttentionKind, Any] = {
        AttentionKind.ENCODER_SELF: found.encoder_self,
        AttentionKind.DECODER_SELF: found.decoder_self,
        AttentionKind.CROSS: found.cross,
    }
    differences = []
    for kind, num_layers in model.attention_layers.items():
        expected = np.stack([next(weights)[0].numpy() for _ in range(num_layers)])
        differences.append(float(np.abs(told[kind].weights - expected).max()))
    return max(differences)


def _measure_round(client: Client, contestant: Contestant, extent: Extent) -> dict[str, Any]:
    name, sources = contestant.run.name, contestant.sources[:_CALL_SIZE]
    started = time.perf_counter()
    generations = client.generate(sources, model=name)
    seconds = time.perf_counter() - started
    num_tokens = sum(len(one.hypotheses[0].token_ids) for one in generations)
    singles = []
    for source in contestant.sources[: extent.num_singles]:
        started = time.perf_counter()
        client.generate([source], model=name)
        singles.append(time.perf_counter() - started)
    return {"tokens_per_second": num_tokens / seconds, "latency_seconds": singles}
