"""Many sentences at once: ours over gRPC against CTranslate2 as a library, greedy and 4 beams."""

import math
import time
from collections.abc import Mapping
from collections.abc import Sequence as Items
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from rich.console import Console

from bench.extent import Extent
from bench.json_process import JsonProcess
from bench.opus_checkpoint import OpusModel
from bench.opus_server import running_ours
from bench.request import TIMEOUT_SECONDS, read_targets, to_request
from bench.workload import (
    Sentence,
    agreement,
    check_targets,
    make_sentences,
    most_common,
    num_target_tokens,
)
from seqserve.v1 import generation_pb2_grpc

SENTENCE_SEED = 1
_MAX_INPUTS = 256
_MIN_CALLS = 2
_THREADS = ((1, 2), (2, 1))
"""The peer's ``inter_threads`` and ``intra_threads``, for two CPUs."""
_NUM_TRIES = 3
"""Of threads, the first of which warms up."""
_BATCHES = (
    *((size, "examples") for size in (32, 64, 128)),
    *((size, "tokens") for size in (1024, 2048, 4096)),
)


def measure_offline(
    model: OpusModel, settings: Mapping[str, str], extent: Extent, console: Console
) -> dict[str, Any]:
    """Tokens a second of both sides in every round, by search."""
    sentences = make_sentences(extent.num_sentences, SENTENCE_SEED)
    found: dict[str, Any] = {}
    with (
        running_ours(model, settings) as server,
        JsonProcess("bench.peer_ctranslate2", str(model.peer)) as peer,
    ):
        chosen: dict[str, Any] = {}
        for name, num_beams, part in (
            ("greedy", 1, sentences),
            ("beam4", 4, sentences[: extent.num_beam_sentences]),
        ):
            if num_beams == 1 or extent.chooses_for_beams:
                sample = most_common(part, extent.num_sample_sentences)
                chosen = choose_settings(peer, sample, num_beams, console)
            found[name] = _measure_rounds(server.target, peer, part, num_beams, chosen, extent)
    return found


def choose_settings(
    peer: JsonProcess, sentences: Items[Sentence], num_beams: int, console: Console
) -> dict[str, Any]:
    """The settings the peer is fastest with: threads first, then batches with the best of them.

    The translator stays loaded with them.
    """
    trials: list[dict[str, Any]] = []

    def try_settings(threads: tuple[int, int], batch: tuple[int, str]) -> float:
        result = peer.call(
            "translate",
            sentences=sentences,
            num_beams=num_beams,
            max_batch_size=batch[0],
            batch_type=batch[1],
        )
        trials.append({"threads": threads, "batch": batch, "seconds": result["seconds"]})
        return float(result["seconds"])

    seconds = {}
    for threads in _THREADS:
        peer.call("load", inter_threads=threads[0], intra_threads=threads[1])
        seconds[threads] = min(try_settings(threads, _BATCHES[1]) for _ in range(_NUM_TRIES))
    inter_threads, intra_threads = best = min(_THREADS, key=seconds.__getitem__)
    peer.call("load", inter_threads=inter_threads, intra_threads=intra_threads)
    try_settings(best, _BATCHES[0])
    by_batch = {batch: try_settings(best, batch) for batch in _BATCHES}
    max_batch_size, batch_type = min(_BATCHES, key=by_batch.__getitem__)
    console.print(
        f"CTranslate2 with {num_beams} beam(s) is fastest with inter_threads={inter_threads}, "
        f"intra_threads={intra_threads}, max_batch_size={max_batch_size} {batch_type}"
    )
    return {
        "inter_threads": inter_threads,
        "intra_threads": intra_threads,
        "max_batch_size": max_batch_size,
        "batch_type": batch_type,
        "trials": trials,
    }


def _measure_rounds(
    target: str,
    peer: JsonProcess,
    sentences: Items[Sentence],
    num_beams: int,
    chosen: Mapping[str, Any],
    extent: Extent,
) -> dict[str, Any]:
    def translate() -> dict[str, Any]:
        result: dict[str, Any] = peer.call(
            "translate",
            sentences=sentences,
            num_beams=num_beams,
            max_batch_size=chosen["max_batch_size"],
            batch_type=chosen["batch_type"],
        )
        check_targets("CTranslate2", sentences, result["targets"])
        return result

    generate_all(target, sentences[:32], num_beams)  # warm up
    seconds: dict[str, list[float]] = {"seqserve": [], "ctranslate2": []}
    ours: list[list[int]] = []
    theirs: dict[str, Any] = {}
    for _ in range(extent.num_rounds):
        ours, ours_seconds = generate_all(target, sentences, num_beams)
        theirs = translate()
        seconds["seqserve"].append(ours_seconds)
        seconds["ctranslate2"].append(theirs["seconds"])
    num_tokens = num_target_tokens(sentences)
    return {
        "num_sentences": len(sentences),
        "num_target_tokens": num_tokens,
        "peer_settings": chosen,
        "seconds": seconds,
        "tokens_per_second": {
            side: [num_tokens / value for value in values] for side, values in seconds.items()
        },
        "token_agreement": agreement(ours, theirs["targets"]),
    }


def generate_all(
    target: str, sentences: Items[Sentence], num_beams: int
) -> tuple[list[list[int]], float]:
    """Targets, checked, and the seconds of concurrent calls of at most 256 inputs.

    The stub is called, not ``Client``, whose options are those of all inputs of a call.
    """
    size = min(_MAX_INPUTS, math.ceil(len(sentences) / _MIN_CALLS))
    parts = [sentences[start : start + size] for start in range(0, len(sentences), size)]
    requests = [to_request(part, num_beams) for part in parts]
    with grpc.insecure_channel(target) as channel, ThreadPoolExecutor(len(parts)) as pool:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        grpc.channel_ready_future(channel).result()
        started_at = time.perf_counter()
        responses = list(
            pool.map(lambda request: stub.Generate(request, timeout=TIMEOUT_SECONDS), requests)
        )
        targets = [tokens for response in responses for tokens in read_targets(response)]
        seconds = time.perf_counter() - started_at
    check_targets("seqserve", sentences, targets)
    return targets, seconds
