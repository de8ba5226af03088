"""Measures replicas behind Envoy, and writes the table of ``deploy/README.md``.

``PYTHONPATH=service:export:tests python -m bench.proxied_replicas_table`` makes a tiny model, and
needs Envoy (``make programs``). It writes ``results/proxied_replicas.json``; ``--no-run`` writes
the table alone.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

from bench.autoscaling_replica import RESULTS
from bench.machine import describe_machine
from bench.marked_table import to_markdown, write
from proxied_replicas import ProxiedReplicas
from requirement import add_programs_to_path

PATH = RESULTS / "proxied_replicas.json"
PAGE = Path(__file__).parents[2] / "deploy" / "README.md"


def table(content: dict[str, Any]) -> str:
    """The phases as Markdown."""
    return to_markdown(
        ["", "calls answered", "failed", "by each replica"],
        [
            [
                phase["name"],
                f"{phase['num_answered']:,}",
                str(sum(phase["failures"].values())),
                ", ".join(f"{one:,}" for one in phase["shares"]),
            ]
            for phase in content["phases"]
        ],
    )


async def measure(num_calls: int) -> dict[str, Any]:
    """Runs all phases over a tiny model."""
    from seqserve_export.exporter import export_model
    from tiny_checkpoint import make_tiny_checkpoint

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_model(make_tiny_checkpoint(folder / "source", 8), folder / "store", name="tiny")
        async with ProxiedReplicas(folder / "store", folder / "envoy") as replicas:
            await replicas.run(num_calls)
    return {
        "machine": describe_machine(),
        "phases": [dataclasses.asdict(phase) for phase in replicas.phases],
    }


def main() -> None:
    """Measures, and writes results and table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-calls", type=int, default=3000)
    parser.add_argument("--no-run", action="store_true")
    arguments = parser.parse_args()
    if not arguments.no_run:
        add_programs_to_path()
        content = asyncio.run(measure(arguments.num_calls))
        PATH.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    content = json.loads(PATH.read_text(encoding="utf-8"))
    write(PAGE, replicas=table(content))


if __name__ == "__main__":
    main()
