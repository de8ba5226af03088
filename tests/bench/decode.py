"""Measures decoding of an OPUS-MT sized model in int8 against CTranslate2 and ``transformers``.

``make bench`` runs it. Sides are processes of their own, measured in turn in every round; ratios of
medians are what counts, since absolute numbers are those of the machine that the result file names.

* offline: hundreds of sentences at once, greedy and with 4 beams.
* online: Poisson arrivals at both servers, the highest rate with a 95th percentile below 2 s.
* single: one sentence at a time, the first token, start of the servers.
* efficiency: the server against its own engine without gRPC.
* transformers: batches of 64 sentences of equal lengths.
* growth: the step of the engine for 1 to 256 rows, and for sources of 16 to 512 tokens.
"""

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.decode_report import TARGETS, make_ratios, print_report
from bench.extent import FULL, QUICK, Extent
from bench.growth import measure_growth
from bench.latency_picture import draw
from bench.machine import describe_machine, installed_versions
from bench.offline import measure_offline
from bench.online import measure_online
from bench.opus_checkpoint import OpusModel, make_opus_model
from bench.references import measure_efficiency, measure_transformers
from bench.single_stream import measure_single_stream

RESULTS = Path(__file__).parent / "results" / "decode.json"
_PACKAGES = ("onnxruntime", "ctranslate2", "torch", "transformers", "grpcio", "numpy")
_MAX_LOAD = 0.5
_Measure = Callable[[OpusModel, Mapping[str, str], Extent, Console], dict[str, Any]]
PARTS: dict[str, _Measure] = {
    "offline": measure_offline,
    "online": measure_online,
    "single": measure_single_stream,
    "efficiency": measure_efficiency,
    "transformers": measure_transformers,
    "growth": measure_growth,
}


def main() -> None:
    """Measures the parts asked for, and writes the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--extent", choices=["quick", "full"], default="quick")
    parser.add_argument("--only", type=_names, default=list(PARTS), help="parts, by commas")
    parser.add_argument("--rounds", type=int, help="instead of those of the extent")
    parser.add_argument(
        *("--setting", "-s"),
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="of the server, as max_batch_size=128",
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console(width=140)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # By an exception, so that the processes of the sides are ended.
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    extent = FULL if arguments.extent == "full" else QUICK
    if arguments.rounds is not None:
        extent = dataclasses.replace(extent, num_rounds=arguments.rounds)
    settings = dict(arguments.setting)
    load = os.getloadavg()[0]
    result = start_result(arguments.results, console)
    model = make_opus_model(console)
    if load > _MAX_LOAD:
        console.print(
            f"the machine is busy: its load was {load:.1f} before anything was measured here; the "
            "figures will say as much about the other programs",
            style="yellow",
        )
    for name in arguments.only:
        console.rule(name)
        began_at = time.monotonic()
        figures = PARTS[name](model, settings, extent, console)
        seconds = time.monotonic() - began_at
        console.print(f"measuring {name} took {seconds:.0f} s")
        result["parts"][name] = {
            "extent": {"name": arguments.extent, **dataclasses.asdict(extent)},
            "server_settings": settings,
            "load_before": load,
            "measuring_seconds": seconds,
            **figures,
        }
        # After each part: a later one may fail.
        write(result, arguments.results)
    print_report(result["parts"], console)
    console.print(f"wrote {arguments.results}")


def start_result(path: Path, console: Console) -> dict[str, Any]:
    """The result file so far, if it is of this machine and these versions."""
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "versions": installed_versions(*_PACKAGES),
    }
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if all(found.get(key) == value for key, value in result.items()):
            return {**result, "parts": found["parts"]}
        console.print(f"{path} is of another machine or of other versions and is replaced")
    return {**result, "parts": {}}


def write(result: dict[str, Any], path: Path) -> None:
    """Writes all figures with their ratios, and the picture beside them."""
    parts = result["parts"]
    content = {
        **{key: result[key] for key in ("machine", "versions")},
        "ratios": make_ratios(parts),
        "targets": {name: str(target) for name, target in TARGETS.items()},
        "parts": parts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if "online" in parts:
        draw(parts["online"], path.with_suffix(".png"))


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"`{name}` is no part; there are: {', '.join(PARTS)}")
    return names


def _setting(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"`{text}` is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    main()
