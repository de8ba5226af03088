"""Measures what number formats cost the shipped pronunciation model: errors on its test words.

``python tests/bench/number_formats.py`` from the root of the repository exports the model in each
format, serves them all, and pronounces the 6,000 words that training never saw.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from seqserve.client import Client
from seqserve.manifest import Manifest
from seqserve_export.demo_server import running_server
from seqserve_export.exporter import export_model
from seqserve_export.precision import DTYPES, Dtype
from seqserve_export.recipes.evaluation import score_predictions
from seqserve_export.recipes.pronunciation_data import Dictionary, read_dictionary, split_words

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "export" / "checkpoints" / "g2p-en"
RESULTS = Path(__file__).parent / "results" / "number_formats.json"
NUM_BEAMS = (1, 4)
WORDS_PER_CALL = 256


def main() -> None:
    """Measures all formats and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtypes", nargs="*", choices=DTYPES, default=["fp32", "int8"])
    parser.add_argument("--words", type=int, default=6000, help="of the test words, from the first")
    arguments = parser.parse_args()
    console = Console(width=100)
    test = split_words(read_dictionary(), num_test=6000, num_valid=2500, seed=1).test
    words = {word: test[word] for word in list(test)[: arguments.words]}
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch)
        manifests = {dtype: export(store, dtype) for dtype in arguments.dtypes}
        with running_server(store, {}, console) as server, Client(server.target) as client:
            found = [
                measure(client, dtype, num_beams, words)
                for dtype in arguments.dtypes
                for num_beams in NUM_BEAMS
            ]
    compare(found)
    report(console, found, manifests, len(words))


def export(store: Path, dtype: Dtype) -> Manifest:
    """Exports the model under the name of its format."""
    return export_model(CHECKPOINT, store, name=dtype, dtype=dtype).manifest


def measure(client: Client, dtype: str, num_beams: int, words: Dictionary) -> dict[str, Any]:
    """Pronounces all words over gRPC and counts errors."""
    listed = list(words)
    texts = [
        generation.text
        for start in range(0, len(listed), WORDS_PER_CALL)
        for generation in client.generate(
            listed[start : start + WORDS_PER_CALL], model=dtype, num_beams=num_beams
        )
    ]
    score = score_predictions([text.split() for text in texts], list(words.values()))
    return {
        "dtype": dtype,
        "num_beams": num_beams,
        "phoneme_error_rate": round(score.phoneme_error_rate, 5),
        "word_error_rate": round(score.word_error_rate, 5),
        "texts": texts,
    }


def compare(found: list[dict[str, Any]]) -> None:
    """Replaces the texts by the share that is the first format's."""
    firsts = {entry["num_beams"]: entry["texts"] for entry in reversed(found)}
    for entry in found:
        pairs = list(zip(entry.pop("texts"), firsts[entry["num_beams"]], strict=True))
        entry["share_of_same_texts"] = round(
            sum(text == first for text, first in pairs) / len(pairs), 5
        )


def report(
    console: Console, found: list[dict[str, Any]], manifests: dict[Dtype, Manifest], num_words: int
) -> None:
    """Prints a table and writes the result file."""
    table = Table("format", "beams", "phoneme errors", "word errors", "same texts")
    for entry in found:
        table.add_row(
            entry["dtype"],
            str(entry["num_beams"]),
            f"{entry['phoneme_error_rate']:.2%}",
            f"{entry['word_error_rate']:.2%}",
            f"{entry['share_of_same_texts']:.2%}",
        )
    console.print(table)
    models = {
        dtype: {
            "bytes": sum(record.size_bytes for record in manifest.files.values()),
            "greedy_agreement": manifest.greedy_agreement,
            "is_batch_invariant": manifest.is_batch_invariant,
        }
        for dtype, manifest in manifests.items()
    }
    content = {"num_words": num_words, "models": models, "measured": found}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
