"""Compares autoscaling by processor load with autoscaling by the work that waits or runs.

A simulation of hours, over replicas whose times are measured ones (see ``autoscaling_replica``): a
day's traffic, and a spike to eight times the rate within ten seconds. Calls go to replicas in turn;
a new replica serves ``START_SECONDS`` after it was decided on. Late are calls that take more than
``LIMIT_SECONDS``, the limit of the benchmark.

``PYTHONPATH=service:tests python -m bench.autoscaling`` writes ``results/autoscaling.json``, its
picture and the tables of ``deploy/CAPACITY.md``; ``--no-picture`` does without matplotlib.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.autoscaling_policy import SYNC_SECONDS, Autoscaler, Behavior, Target
from bench.autoscaling_replica import DECODING, RESULTS, TARGET_TOKENS, Costs, Replica
from bench.marked_table import to_markdown, write

PATH = RESULTS / "autoscaling.json"
PAGE = Path(__file__).parents[2] / "deploy" / "CAPACITY.md"
LIMIT_SECONDS = 2.0
START_SECONDS = 30
"""To be scheduled, to pull, to open models and to be found by clients; of these the server's own
start takes about one."""
STEP_SECONDS = 0.25
CPU_CHOSEN = (Target("cpu", 0.8),)
"""Of the autoscaler by processor load in the manifests."""
QUEUE_CHOSEN = (Target("queue", 16), *CPU_CHOSEN)
"""Of the one by the work that waits or runs."""
CHOICES = (
    *((Target("cpu", part),) for part in (0.6, 0.8, 0.9)),
    *((Target("queue", number),) for number in (8, 16, 32, 64)),
    *(
        (Target("queue", number), Target("cpu", part))
        for part in (0.8, 0.9)
        for number in (8, 16, 32)
    ),
)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Calls a second over time."""

    name: str
    seconds: int
    rate: Callable[[float], float]


def _day(now: float) -> float:
    """From 20 calls a second at night to 400 at noon, with a second peak in the evening."""
    hour = now / 3600
    noon = math.exp(-(((hour - 12.5) / 3.2) ** 2))
    evening = 0.6 * math.exp(-(((hour - 20) / 1.6) ** 2))
    return 20 + 380 * max(noon, evening)


def _spike(now: float) -> float:
    """60 calls a second, and 480 from the tenth to the twentieth minute, within ten seconds."""
    rising = min(1.0, max(0.0, (now - 600) / 10))
    falling = min(1.0, max(0.0, (now - 1200) / 10))
    return 60 + 420 * (rising - falling)


TRAFFICS = (Traffic("day", 86_400, _day), Traffic("spike", 2400, _spike))


def name_of(targets: Sequence[Target]) -> str:
    """For tables."""
    return ", ".join(one.name for one in targets)


def simulate(
    traffic: Traffic, targets: Sequence[Target], costs: Costs, seed: int = 1
) -> dict[str, Any]:
    """One autoscaler over one traffic; what its callers saw, what it took, and its course."""
    chance = random.Random(seed)
    behavior = Behavior()
    autoscaler = Autoscaler(targets, behavior)
    ready = [Replica(costs) for _ in range(behavior.min_replicas)]
    draining: list[Replica] = []
    starting: list[float] = []
    latencies = collections.defaultdict[int, float](float)
    course: list[dict[str, float]] = []
    replica_seconds = num_arrived = num_refused = 0.0
    num_started = 0
    steps_a_second = round(1 / STEP_SECONDS)
    for second in range(traffic.seconds):
        # Arrivals at random: their number is Poisson's, nearly normal at these rates.
        rate = traffic.rate(second)
        arrivals = max(0.0, chance.gauss(rate, math.sqrt(rate)))
        num_arrived += arrivals
        while starting and starting[0] <= second:
            starting.pop(0)
            ready.append(Replica(costs))
        for step in range(steps_a_second):
            now = second + step * STEP_SECONDS
            share = arrivals / steps_a_second / len(ready)
            for one in ready:
                for latency, number in one.advance(now, STEP_SECONDS, share):
                    latencies[round(1000 * latency)] += number
            for one in draining:
                for latency, number in one.advance(now, STEP_SECONDS, 0.0):
                    latencies[round(1000 * latency)] += number
        num_refused += sum(one.num_refused for one in ready)
        for one in ready:
            one.num_refused = 0.0
        draining = [one for one in draining if one.num_outstanding]
        replica_seconds += len(ready) + len(starting) + len(draining)
        autoscaler.observe(ready)
        if second % SYNC_SECONDS == SYNC_SECONDS - 1:
            existing = len(ready) + len(starting)
            wanted = autoscaler.decide(second, len(ready), existing)
            starting += [second + START_SECONDS] * (wanted - existing)
            num_started += max(0, wanted - existing)
            for _ in range(existing - wanted):  # those that start go first
                if starting:
                    starting.pop()
                else:
                    draining.append(ready.pop())
            course.append(
                {
                    "second": second,
                    "rate": rate,
                    "replicas": len(ready),
                    "outstanding": sum(one.mean_outstanding for one in ready),
                    "busy": sum(one.busy for one in ready) / len(ready),
                }
            )
    return {
        "target": name_of(targets),
        **_percentiles(latencies),
        "late_or_refused": (
            sum(latencies[one] for one in latencies if one > 1000 * LIMIT_SECONDS) + num_refused
        )
        / num_arrived,
        "refused": num_refused / num_arrived,
        "replica_hours": replica_seconds / 3600,
        "replicas_started": num_started,
        "course": course[:: max(1, len(course) // 480)],
    }


def _percentiles(latencies: Mapping[int, float]) -> dict[str, float]:
    """Of calls by their latency in milliseconds."""
    total = sum(latencies.values())
    found, passed = {}, 0.0
    wanted = [(0.5, "p50_seconds"), (0.95, "p95_seconds"), (0.99, "p99_seconds")]
    for latency in sorted(latencies):
        passed += latencies[latency]
        while wanted and passed >= wanted[0][0] * total * (1 - 1e-9):
            found[wanted.pop(0)[1]] = latency / 1000
    return found


def compare_with_measured(costs: Costs) -> list[dict[str, float]]:
    """One replica at the rates at which the benchmark measured a server."""
    content = json.loads(DECODING.read_text(encoding="utf-8"))
    online = content["parts"]["online"]
    rows = []
    for name in ("50%", "80%"):
        measured = online["at_own_maximum"]["seqserve"][name]
        replica, latencies = Replica(costs), collections.defaultdict[int, float](float)
        for step in range(round(120 / STEP_SECONDS)):
            arrivals = measured["rate"] * STEP_SECONDS
            done = replica.advance(step * STEP_SECONDS, STEP_SECONDS, arrivals)
            for latency, number in done:
                latencies[round(1000 * latency)] += number
        outstanding = measured["mean_outstanding"]
        rows.append(
            {
                "calls_a_second": measured["rate"],
                "measured_p50_seconds": measured["p50_seconds"],
                "simulated_p50_seconds": _percentiles(latencies)["p50_seconds"],
                "measured_outstanding": sum(outstanding) / len(outstanding),
                "simulated_outstanding": replica.mean_outstanding,
            }
        )
    return rows


def tables(content: Mapping[str, Any]) -> dict[str, str]:
    """Those of the page, by name; what the manifests have is marked."""
    chosen = content["chosen"]
    return {
        "replica": to_markdown(
            [
                "calls a second",
                "p50 measured",
                "simulated",
                "calls at a time measured",
                "simulated",
            ],
            [
                [
                    f"{one['calls_a_second']:.0f}",
                    f"{1000 * one['measured_p50_seconds']:.0f} ms",
                    f"{1000 * one['simulated_p50_seconds']:.0f} ms",
                    f"{one['measured_outstanding']:.0f}",
                    f"{one['simulated_outstanding']:.0f}",
                ]
                for one in content["one_replica"]
            ],
        ),
        "autoscaling": to_markdown(
            ["traffic", "target", "p50", "p95", "p99", "late", "replica hours", "started"],
            [
                [
                    name,
                    f"**{one['target']}**" if one["target"] in chosen else one["target"],
                    *(f"{1000 * one[f'{part}_seconds']:,.0f} ms" for part in ("p50", "p95", "p99")),
                    f"{one['late_or_refused']:.2%}",
                    f"{one['replica_hours']:.1f}",
                    str(one["replicas_started"]),
                ]
                for name, runs in content["traffics"].items()
                for one in runs
            ],
        ),
    }


def main() -> None:
    """Simulates, and writes results, tables and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-picture", action="store_true")
    arguments = parser.parse_args()
    costs = Costs.read()
    content: dict[str, Any] = {
        "costs": dataclasses.asdict(costs)
        | {"target_tokens": TARGET_TOKENS, "most_calls_48_rows": costs.most_calls(48)},
        "behavior": dataclasses.asdict(Behavior()),
        "start_seconds": START_SECONDS,
        "limit_seconds": LIMIT_SECONDS,
        "one_replica": compare_with_measured(costs),
        "chosen": [name_of(CPU_CHOSEN), name_of(QUEUE_CHOSEN)],
        "traffics": {
            traffic.name: [simulate(traffic, targets, costs) for targets in CHOICES]
            for traffic in TRAFFICS
        },
    }
    for one in (one for runs in content["traffics"].values() for one in runs):
        if one["target"] not in content["chosen"]:
            del one["course"]
    PATH.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write(PAGE, **tables(content))
    if not arguments.no_picture:
        from bench.autoscaling_picture import draw

        draw(content, PATH.with_suffix(".png"))


if __name__ == "__main__":
    main()
