"""Measures what the explain graph costs those who do not ask: throughput and memory of Generate.

``PYTHONPATH=service:export:tests python -m bench.attention_cost --store models`` runs it on the
``g2p-en`` of ``make demo`` and writes ``tests/bench/results/attention_cost.json``. One server has
the model as exported, one without its explain graph; they run side by side and are called in turn,
so that what else the machine does meets both. Then the first is asked for attention, and both are
measured again. The processor's time that a server takes for a word depends less on what else runs
than how many words come in a second.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import string
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench.machine import describe_machine, installed_versions
from bench.server_process import ServerProcess, running_seqserve
from seqserve.client import Client
from served_folders import copy_version, read_json, write_json

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "attention_cost.json"
MODEL = "g2p-en"
NUM_WORDS = 256
NUM_WARM_UPS = 3
NUM_ATTENDS = 20
SIDES = ("explained", "plain")


def main() -> None:
    """Measures, prints a table and writes the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, default=ROOT / "models")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    words = make_words(random.Random(7))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {
            side: stack.enter_context(running_seqserve(store, {"threads": "1"}, generate_first))
            for side, store in make_stores(arguments.store, folder).items()
        }
        clients = {
            side: stack.enter_context(Client(server.target)) for side, server in servers.items()
        }
        measure(servers, clients, words, NUM_WARM_UPS)
        before = measure(servers, clients, words, arguments.rounds)
        seconds = attend(clients["explained"], words)
        after = measure(servers, clients, words, arguments.rounds)
    content = {
        "machine": describe_machine(),
        "versions": installed_versions("onnxruntime", "grpcio"),
        "load_average": os.getloadavg()[0],
        "before_first_use": before,
        "attend_seconds": seconds,
        "after_first_use": after,
    }
    print_table(before, after, seconds)
    arguments.results.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def make_stores(store: Path, folder: Path) -> dict[str, Path]:
    """The model as it is, and without its explain graph."""
    version = max((store / MODEL).glob("*/seqserve.json")).parent
    for side in SIDES:
        copy_version(version, folder / side / MODEL / version.name)
    plain = folder / "plain" / MODEL / version.name
    manifest = read_json(plain)
    graph = manifest.pop("explanation")["graph"]
    del manifest["files"][graph]
    (plain / graph).unlink()
    write_json(plain, manifest)
    return {side: folder / side for side in SIDES}


def make_words(generator: random.Random) -> list[str]:
    """Words of 4 to 11 random letters."""
    return [
        "".join(generator.choices(string.ascii_lowercase, k=generator.randint(4, 11)))
        for _ in range(NUM_WORDS)
    ]


def generate_first(target: str) -> None:
    """Opens what a first call opens."""
    with Client(target) as client:
        client.generate("first", model=MODEL)


def measure(
    servers: dict[str, ServerProcess],
    clients: dict[str, Client],
    words: list[str],
    num_rounds: int,
) -> dict[str, Any]:
    """Speed and memory of each server, called in turn, and ratios of each round, to plain."""
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    costs: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(num_rounds):
        # Who comes first, changes.
        for side in SIDES if number % 2 else reversed(SIDES):
            started_at, spent = time.perf_counter(), cpu_seconds(servers[side])
            clients[side].generate(words, model=MODEL)
            rates[side].append(len(words) / (time.perf_counter() - started_at))
            costs[side].append((cpu_seconds(servers[side]) - spent) / len(words))
    found: dict[str, Any] = {
        side: {
            "words_per_second": statistics.median(rates[side]),
            "cpu_seconds_per_word": statistics.median(costs[side]),
            **servers[side].memory(),
        }
        for side in SIDES
    }
    for name, values in (("rate", rates), ("cpu", costs)):
        ratios = [one / other for one, other in zip(*(values[side] for side in SIDES), strict=True)]
        found |= {f"{name}_ratio": statistics.median(ratios), f"{name}_ratios": sorted(ratios)}
    return found


def cpu_seconds(server: ServerProcess) -> float:
    """What a server has taken of processors so far."""
    times = psutil.Process(server.process.pid).cpu_times()
    return times.user + times.system


def attend(client: Client, words: list[str]) -> dict[str, float]:
    """Seconds of the first call, which opens the graph, and of later ones."""
    seconds = []
    for word in words[:NUM_ATTENDS]:
        started_at = time.perf_counter()
        client.attend(word, model=MODEL)
        seconds.append(time.perf_counter() - started_at)
    return {"first": seconds[0], "median_of_others": statistics.median(seconds[1:])}


def print_table(before: dict[str, Any], after: dict[str, Any], seconds: dict[str, float]) -> None:
    """Prints what matters of the result."""
    table = Table("against plain", "words/s", "CPU a word", "rounds", "private MiB", "plain")
    for name, found in (("before the first Attend", before), ("after it", after)):
        ratios = found["cpu_ratios"]
        table.add_row(
            name,
            f"{found['rate_ratio']:.3f}",
            f"{found['cpu_ratio']:.3f}",
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
            *(f"{found[side]['private_bytes'] / 2**20:.1f}" for side in SIDES),
        )
    console = Console(width=100)
    console.print(table)
    first, others = (1000 * seconds[name] for name in ("first", "median_of_others"))
    console.print(f"Attend: {first:.0f} ms the first time, then {others:.0f} ms")


if __name__ == "__main__":
    main()
