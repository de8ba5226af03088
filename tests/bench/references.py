"""Ours over gRPC against the engine in a process of its own, and against ``transformers``."""

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from typing import Any

from rich.console import Console

from bench.extent import Extent
from bench.json_process import JsonProcess
from bench.offline import SENTENCE_SEED, generate_all
from bench.opus_checkpoint import OpusModel
from bench.opus_server import running_ours
from bench.workload import (
    Sentence,
    agreement,
    check_targets,
    make_equal_sentences,
    make_sentences,
    num_target_tokens,
)

_EQUAL_LENGTH = 24


def measure_efficiency(
    model: OpusModel, settings: Mapping[str, str], extent: Extent, console: Console
) -> dict[str, Any]:
    """The server against its own engine, on the offline sentences, greedy."""
    sentences = make_sentences(extent.num_sentences, SENTENCE_SEED)
    arguments = [f"{name}={value}" for name, value in settings.items()]
    with (
        running_ours(model, settings) as server,
        JsonProcess("bench.engine_process", str(model.folder), *arguments) as engine,
    ):
        return _compare(
            server.target,
            "engine",
            lambda part: engine.call("generate", sentences=part),
            sentences,
            extent,
        )


def measure_transformers(
    model: OpusModel, settings: Mapping[str, str], extent: Extent, console: Console
) -> dict[str, Any]:
    """The server against ``transformers.generate`` in its best case: lengths are equal."""
    sentences = make_equal_sentences(extent.num_equal_sentences, _EQUAL_LENGTH, seed=2)
    with (
        running_ours(model, settings) as server,
        JsonProcess("bench.peer_transformers", str(model.checkpoint)) as peer,
    ):
        return _compare(
            server.target,
            "transformers",
            lambda part: peer.call("translate", sentences=part),
            sentences,
            extent,
        )


def _compare(
    target: str,
    side: str,
    run: Callable[[Items[Sentence]], dict[str, Any]],
    sentences: Items[Sentence],
    extent: Extent,
) -> dict[str, Any]:
    """Tokens a second of both in every round."""
    generate_all(target, sentences[:16], 1)  # warm up
    run(sentences[:16])
    num_tokens = num_target_tokens(sentences)
    speeds: dict[str, list[float]] = {"seqserve": [], side: []}
    ours: list[list[int]] = []
    theirs: list[list[int]] = []
    for _ in range(extent.num_rounds):
        ours, seconds = generate_all(target, sentences, 1)
        result = run(sentences)
        theirs = result["targets"]
        check_targets(side, sentences, theirs)
        speeds["seqserve"].append(num_tokens / seconds)
        speeds[side].append(num_tokens / result["seconds"])
    return {
        "num_sentences": len(sentences),
        "num_target_tokens": num_tokens,
        "tokens_per_second": speeds,
        "token_agreement": agreement(ours, theirs),
    }
