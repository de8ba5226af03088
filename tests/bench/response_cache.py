"""Measures what keeping and sharing answers costs and spares, in latencies of single calls.

``PYTHONPATH=service:export:tests python -m bench.response_cache --store models`` runs it on the
models of ``make demo``. Servers run side by side and are called in turn, so that what else the
machine does meets all of them.

* A miss: texts that never came before, to a server that keeps nothing, one that keeps answers, and
  one that computes equal inputs once as well.
* A hit: the same text again.
"""

import argparse
import contextlib
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.server_process import running_seqserve
from seqserve.client import Client

ROOT = Path(__file__).parents[2]
_CACHE = "response_cache_bytes = 268_435_456\n"
SETTINGS = {"off": "", "kept": _CACHE, "kept and shared": f"{_CACHE}deduplicate = true\n"}
"""The lines of a file of settings, for each server."""
_WORDS = ["the", "a", "cat", "dog", "house", "rain", "light", "sea", "of", "in", "runs", "never"]
Call = Callable[[Client, str], object]
CALLS: dict[str, tuple[int, Call]] = {
    "embed": (12, lambda client, text: client.embed([text], model="all-minilm-l6-v2")),
    "generate": (1, lambda client, text: client.generate([text], model="g2p-en")),
}
"""Words of a text, and what is done with it."""


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=ROOT / "models")
    parser.add_argument("--calls", type=int, default=1000)
    arguments = parser.parse_args()
    table = Table("call", "server", "miss, ms", "against off", "hit, ms")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clients = {}
        for name, lines in SETTINGS.items():
            file = folder / f"{name}.toml"
            file.write_text(lines)
            settings = {"config": str(file)}
            server = stack.enter_context(running_seqserve(arguments.store, settings, embed_first))
            clients[name] = stack.enter_context(Client(server.target))
        for kind, (num_words, call) in CALLS.items():
            texts = make_texts(num_words, arguments.calls)
            misses = measure(clients, call, texts)
            hits = measure(clients, call, [texts[-1]] * arguments.calls)
            for name, seconds in misses.items():
                table.add_row(
                    kind,
                    name,
                    f"{1000 * seconds:.3f}",
                    f"{100 * (seconds / misses['off'] - 1):+.1f} %",
                    f"{1000 * hits[name]:.3f}",
                )
    Console(width=100).print(table)


def embed_first(target: str) -> None:
    """Has a server answer its first call."""
    with Client(target) as client:
        CALLS["embed"][1](client, "first")


def make_texts(num_words: int, number: int) -> list[str]:
    """Texts of so many words, all different."""
    generator = random.Random(num_words)
    numbers = itertools.count()
    return [
        " ".join([*generator.choices(_WORDS, k=num_words - 1), _spell(next(numbers))])
        for _ in range(number)
    ]


def _spell(number: int) -> str:
    """A word of five letters for each number."""
    letters = [chr(ord("a") + number // 26**place % 26) for place in range(5)]
    return "".join(letters)


def measure(clients: Mapping[str, Client], call: Call, texts: list[str]) -> dict[str, float]:
    """The median seconds of a call to each server, the servers in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in clients}
    generator = random.Random(0)
    for text in texts:
        for name in generator.sample(list(clients), len(clients)):
            started_at = time.perf_counter()
            call(clients[name], text)
            seconds[name].append(time.perf_counter() - started_at)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
