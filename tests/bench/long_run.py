"""Whether the server's memory stays flat: 100,000 calls of every kind, over gRPC.

``make bench-long`` runs it. The server runs in a process of its own, as users start it, with the
pronunciation model. Its resident memory is sampled every thousandth of the way; it is flat if the
median of the last tenth is at most 5 % above that of the second tenth, the first being warm-up.
``--planted-leak`` runs a server that keeps 1 KB of most calls, which must not pass for flat; it
writes no result.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.machine import describe_machine, installed_versions
from bench.mixed_calls import MODEL, MixedCalls
from seqserve.client import AsyncClient
from seqserve_export.demo import export_models
from seqserve_export.recipes.pronunciation_data import read_dictionary

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "long_run.json"
MAX_GROWTH = 0.05
_NUM_SAMPLES = 100
_CONCURRENCY = 24
_STOP_SECONDS = 45.0


class Growth(NamedTuple):
    """What samples of memory say."""

    early_bytes: float
    """Median of the second tenth."""
    late_bytes: float
    """Median of the last tenth."""

    @property
    def share(self) -> float:
        """How much more the late median is."""
        return self.late_bytes / self.early_bytes - 1

    @property
    def is_flat(self) -> bool:
        """Whether it is little enough to be no leak."""
        return self.share <= MAX_GROWTH


def judge(samples: list[int]) -> Growth:
    """Compares the second and the last tenth of at least 10 samples."""
    tenth = len(samples) // 10
    return Growth(
        statistics.median(samples[tenth : 2 * tenth]), statistics.median(samples[-tenth:])
    )


def main() -> None:
    """Runs all calls; exits with 1 if memory is not flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="at least 100")
    parser.add_argument("--store", type=Path, default=ROOT / "models")
    parser.add_argument("--planted-leak", action="store_true")
    arguments = parser.parse_args()
    if arguments.calls < _NUM_SAMPLES:
        parser.error(f"--calls must be at least {_NUM_SAMPLES}, but is {arguments.calls}")
    console = Console(width=100)
    store = arguments.store.resolve()
    os.chdir(ROOT)
    export_models(store, console)
    module = "bench.leaking_server" if arguments.planted_leak else "seqserve"
    started_at = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(store / MODEL, Path(scratch) / MODEL)
        with running_server(module, Path(scratch)) as (target, process):
            samples, ends = asyncio.run(send(target, process, arguments.calls, console))
    seconds = time.perf_counter() - started_at
    growth = judge(samples)
    console.print(
        f"{arguments.calls} calls in {seconds:.0f} s: {growth.early_bytes / 2**20:.1f} MiB in the "
        f"second tenth, {growth.late_bytes / 2**20:.1f} MiB in the last ({growth.share:+.1%}): "
        + ("flat" if growth.is_flat else f"not flat, which would be at most {MAX_GROWTH:+.0%}")
    )
    if not arguments.planted_leak:
        write(arguments.calls, seconds, samples, ends, growth)
        console.print(f"wrote {RESULTS.relative_to(ROOT)}")
    sys.exit(not growth.is_flat)


@contextlib.contextmanager
def running_server(module: str, store: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Runs a module as ``seqserve serve``; yields its target and its process.

    Raises:
        RuntimeError: It does not start, or does not stop cleanly.
    """
    command = [sys.executable, "-m", module, "serve", "--models", str(store)]
    command += ["--log-level", "warning"]
    for name in ("port", "health-port", "metrics-port"):
        command += [f"--{name}", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        match = re.search(r"grpc=(\S+)", process.stdout.readline())
        if match is None:
            raise RuntimeError(f"{module} did not start")
        yield match[1], psutil.Process(process.pid)
    finally:
        process.terminate()
        code = process.wait(_STOP_SECONDS)
        process.stdout.close()
    if code:
        raise RuntimeError(f"{module} stopped with exit code {code}")


async def send(
    target: str, process: psutil.Process, num_calls: int, console: Console
) -> tuple[list[int], collections.Counter[str]]:
    """Sends all calls, some at once.

    Returns:
        Resident bytes of the server along the way, and how many calls ended how.
    """
    samples: list[int] = []
    ends: collections.Counter[str] = collections.Counter()
    numbers = iter(range(num_calls))
    words = sorted(read_dictionary())
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=num_calls)

        def count(end: str) -> None:
            ends[end] += 1
            progress.update(task, advance=1)
            if ends.total() * _NUM_SAMPLES // num_calls > len(samples):
                samples.append(process.memory_info().rss)
                progress.update(task, description=f"{samples[-1] / 2**20:.1f} MiB")

        async with AsyncClient(target) as client, asyncio.TaskGroup() as group:
            calls = MixedCalls(client, words)
            for _ in range(_CONCURRENCY):
                group.create_task(_send_next(calls, numbers, count))
    return samples, ends


async def _send_next(
    calls: MixedCalls, numbers: Iterator[int], count: Callable[[str], None]
) -> None:
    """One caller of several, who each send the next call when the last one has ended."""
    for number in numbers:
        count(await calls.make(number))


def write(
    num_calls: int,
    seconds: float,
    samples: list[int],
    ends: collections.Counter[str],
    growth: Growth,
) -> None:
    """Writes the result file."""
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "versions": installed_versions("onnxruntime", "grpcio", "numpy", "tokenizers"),
        "calls": num_calls,
        "concurrency": _CONCURRENCY,
        "seconds": seconds,
        "ends": dict(sorted(ends.items())),
        "resident_bytes": samples,
        "second_tenth_bytes": growth.early_bytes,
        "last_tenth_bytes": growth.late_bytes,
        "growth": growth.share,
        "max_growth": MAX_GROWTH,
        "is_flat": growth.is_flat,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
