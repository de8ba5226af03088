"""Measures a server with twice the load it can bear: an OPUS-MT sized model in int8, over gRPC.

``PYTHONPATH=service:export:tests python -m bench.overload`` runs it on the model of the decode
benchmark and writes ``tests/bench/results/overload.json``. Every round measures what callers who
wait are answered, then sends twice as many calls for half a minute; the ratio of the two is what
counts. The server has one processor, and its callers have another: a call that is refused costs its
caller as much as it costs the server, which would count against the server if they shared one.

Calls have one sentence, then four. What a refusal takes of the server, about 1.5 ms, is a tenth of
what a short sentence takes.
"""

import argparse
import asyncio
import json
import os
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.machine import describe_machine, installed_versions
from bench.opus_checkpoint import OpusModel, make_opus_model
from bench.request import to_request
from bench.workload import make_sentences
from overload import Load, Overload
from processes import start_process, stop_process, wait_until_ready

RESULTS = Path(__file__).parent / "results" / "overload.json"
NUM_SENTENCES = 512
CALL_SIZES = (1, 4)
"""Sentences of a call."""
DEADLINE_SECONDS = 30.0
MAX_OUTSTANDING = 256
"""Sentences; what is waited for then takes some seconds, not half a minute."""


def main() -> None:
    """Measures all rounds and writes the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console(width=110)
    machine = describe_machine()
    own, *others = sorted(os.sched_getaffinity(0))
    if not others:
        parser.error("needs two processors: one for the server, one for its callers")
    os.sched_setaffinity(0, {own})
    model = make_opus_model(console)
    table = Table(
        *(
            "sentences",
            "capacity, calls/s",
            "answered at twice that",
            "ratio",
            "refusal, ms: median",
        ),
        *("99 of 100", "slowest call, s", "slowest health check, ms"),
    )
    rounds: dict[int, list[dict[str, Any]]] = {size: [] for size in CALL_SIZES}
    for _ in range(arguments.rounds):
        for size in CALL_SIZES:
            figures = to_figures(asyncio.run(measure(model, others[0], size)))
            rounds[size].append(figures)
            table.add_row(str(size), *(f"{figure:.3g}" for figure in list(figures.values())[:7]))
    console.print(table)
    content = {
        "machine": machine,
        "versions": installed_versions("onnxruntime", "grpcio"),
        "ratios": {
            f"goodput_of_{size}": statistics.median(one["goodput_ratio"] for one in figures)
            for size, figures in rounds.items()
        },
        "rounds": rounds,
    }
    arguments.results.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(f"wrote {arguments.results}")


async def measure(model: OpusModel, processor: int, size: int) -> Overload:
    """One round, with a server of its own on one processor."""
    sentences = make_sentences(NUM_SENTENCES, seed=2)
    requests = [to_request(sentences[at : at + size]) for at in range(0, NUM_SENTENCES, size)]
    process = await asyncio.to_thread(
        start_process,
        model.store,
        *("--log-level", "warning", "--max-outstanding", str(MAX_OUTSTANDING)),
        *("--max-inputs-per-request", str(size)),
        prefix=("taskset", "--cpu-list", str(processor)),
    )
    load = Load(
        await wait_until_ready(process),
        requests,
        num_callers=MAX_OUTSTANDING // size,
        deadline_seconds=DEADLINE_SECONDS,
    )
    overload = await load.run(fill_seconds=8.0, capacity_seconds=20.0)
    await stop_process(process)
    return overload


def to_figures(overload: Overload) -> dict[str, Any]:
    """What is written down of a round."""
    return {
        "capacity": overload.capacity,
        "goodput": overload.goodput,
        "goodput_ratio": overload.goodput / overload.capacity,
        "refusal_ms": 1000 * statistics.median(overload.refusal_seconds),
        "refusal_p99_ms": 1000 * statistics.quantiles(overload.refusal_seconds, n=100)[98],
        "slowest_call_s": overload.slowest_seconds,
        "slowest_probe_ms": 1000 * max(overload.probe_seconds),
        "codes": dict(overload.codes),
        "sending_s": overload.sending_seconds,
    }


if __name__ == "__main__":
    main()
