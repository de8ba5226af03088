"""Measures the server against what its users would run instead, over the same weights.

``make bench`` runs it. Both sides are measured in turn in every round, and the ratio of medians is
what counts: absolute numbers are those of the machine that the result file names.

* generate: words pronounced by ``g2p-en``, over gRPC, against eager torch decoding with a cache.
* embed: sentences by ``all-minilm-l6-v2``, over gRPC, against sentence-transformers.

Only what a user would call is measured: the server runs in a process of its own.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from bench.machine import describe_machine, installed_versions
from seqserve.client import Client
from seqserve_export.checkpoint import SOURCE_TOKENIZER_FILE, load_checkpoint
from seqserve_export.demo import export_models, sentence_folder
from seqserve_export.demo_server import running_server
from seqserve_export.recipes.decoding import decode_all
from seqserve_export.recipes.pronunciation_data import read_dictionary, split_words

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "export" / "checkpoints" / "g2p-en"
RESULTS = Path(__file__).parent / "results" / "serve.json"
NUM_WORDS = 512
NUM_SENTENCES = 256
BATCH_SIZE = 64


def main() -> None:
    """Runs all rounds and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", type=Path, default=ROOT / "models")
    arguments = parser.parse_args()
    console = Console(width=100)
    os.chdir(ROOT)
    export_models(arguments.store, console)
    words, sentences = make_words(), make_sentences()
    with (
        running_server(arguments.store, {}, console) as server,
        Client(server.target) as client,
    ):
        decode_words = make_torch_decoder()
        sides: dict[str, Callable[[], float]] = {
            "generate_seqserve": lambda: generate(client, words),
            "generate_torch": lambda: timed(lambda: decode_words(words)),
            "embed_seqserve": lambda: embed(client, sentences),
            "embed_sentence_transformers": make_sentence_transformers(sentences),
        }
        for measure in sides.values():
            measure()  # warm up
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, measure in sides.items():
                seconds[name].append(measure())
        latencies = measure_latencies(
            lambda word: client.generate(word, model="g2p-en"), words[:100]
        )
        torch_latencies = measure_latencies(lambda word: decode_words([word]), words[:100])
        resident_bytes = psutil.Process(server.process.pid).memory_info().rss
    report(console, seconds, latencies, torch_latencies, resident_bytes, arguments.rounds)


def make_words() -> list[str]:
    """Words of the test split of the pronunciation model."""
    splits = split_words(read_dictionary(), num_test=6000, num_valid=2500, seed=1)
    return list(splits.test)[:NUM_WORDS]


def make_sentences() -> list[str]:
    """Sentences of 5 to 60 words, made of dictionary words."""
    words = make_words()
    return [
        " ".join(words[(7 * index + place) % len(words)] for place in range(5 + index % 56))
        for index in range(NUM_SENTENCES)
    ]


def generate(client: Client, words: list[str]) -> float:
    """Seconds to pronounce all words in calls of at most 256."""
    started_at = time.perf_counter()
    for start in range(0, len(words), 256):
        client.generate(words[start : start + 256], model="g2p-en")
    return time.perf_counter() - started_at


def make_torch_decoder() -> Callable[[list[str]], object]:
    """Decodes words in eager torch with a cache, sorted, in batches of 256: its best case."""
    checkpoint = load_checkpoint(CHECKPOINT)
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / SOURCE_TOKENIZER_FILE))

    def decode(words: list[str]) -> object:
        sources = [tokenizer.encode(word).ids for word in words]
        return decode_all(checkpoint.model, sources, checkpoint.generation, num_beams=1)

    return decode


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at


def embed(client: Client, sentences: list[str]) -> float:
    """Seconds to embed all sentences in one call."""
    started_at = time.perf_counter()
    client.embed(sentences, model="all-minilm-l6-v2", truncate=True)
    return time.perf_counter() - started_at


def make_sentence_transformers(sentences: list[str]) -> Callable[[], float]:
    """The same sentences by sentence-transformers, which sorts them by length itself."""
    model = SentenceTransformer(str(sentence_folder()), device="cpu")

    def measure() -> float:
        started_at = time.perf_counter()
        model.encode(sentences, batch_size=BATCH_SIZE)
        return time.perf_counter() - started_at

    return measure


def measure_latencies(call: Callable[[str], object], words: list[str]) -> list[float]:
    """Seconds of single calls, one after the other, sorted."""
    latencies = []
    for word in words:
        started_at = time.perf_counter()
        call(word)
        latencies.append(time.perf_counter() - started_at)
    return sorted(latencies)


def report(
    console: Console,
    seconds: dict[str, list[float]],
    latencies: list[float],
    torch_latencies: list[float],
    resident_bytes: int,
    num_rounds: int,
) -> None:
    """Prints a table and writes the result file."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        "generate_vs_torch": medians["generate_torch"] / medians["generate_seqserve"],
        "embed_vs_sentence_transformers": (
            medians["embed_sentence_transformers"] / medians["embed_seqserve"]
        ),
    }
    table = Table("measure", "seqserve", "peer", "times as fast")
    table.add_row(
        f"generate: {NUM_WORDS} words a second, peer eager torch",
        f"{NUM_WORDS / medians['generate_seqserve']:.0f}",
        f"{NUM_WORDS / medians['generate_torch']:.0f}",
        f"{ratios['generate_vs_torch']:.2f}",
    )
    table.add_row(
        f"embed: {NUM_SENTENCES} sentences a second, peer sentence-transformers",
        f"{NUM_SENTENCES / medians['embed_seqserve']:.0f}",
        f"{NUM_SENTENCES / medians['embed_sentence_transformers']:.0f}",
        f"{ratios['embed_vs_sentence_transformers']:.2f}",
    )
    p50, torch_p50 = statistics.median(latencies), statistics.median(torch_latencies)
    ratios["single_word_vs_torch"] = torch_p50 / p50
    table.add_row(
        "generate: one word alone, median milliseconds, peer eager torch",
        f"{p50 * 1000:.2f}",
        f"{torch_p50 * 1000:.2f}",
        f"{ratios['single_word_vs_torch']:.2f}",
    )
    console.print(table)
    console.print(
        f"one word: p50 {p50 * 1000:.2f} ms, p95 {latencies[95] * 1000:.2f} ms over gRPC; "
        f"server with both models: {resident_bytes / 2**20:.0f} MiB resident"
    )
    packages = ("onnxruntime", "torch", "sentence-transformers", "grpcio", "numpy")
    result = {
        "machine": {**describe_machine(), "torch_threads": torch.get_num_threads()},
        "versions": installed_versions(*packages),
        "rounds": num_rounds,
        "seconds": seconds,
        "single_word_seconds": {"p50": p50, "p95": latencies[95], "torch_p50": torch_p50},
        "server_resident_bytes": resident_bytes,
        "ratios": ratios,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print(f"wrote {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
