"""Chooses when to encode between decode steps: the real scheduler, with a cost model for an engine.

A decode step takes ``STEP + ROW * rows`` seconds and an encoder pass ``PASS + TOKEN * tokens``,
padding included: what an OPUS-MT model in int8 takes on one thread (AMD EPYC, AVX512-VNNI). Sources
have 5 to 60 tokens, one in fifty has 400, and targets are about as long as their sources.

* offline: 1,500 inputs queued at once; their rate, and the passes it took.
* online: arrivals at random at 60 % and 97 % of that rate; latencies, and the longest time that
  running sequences stood still.

``PYTHONPATH=service:tests python tests/bench/admission_simulation.py`` prints the table.
"""

import dataclasses
import functools
import random
import statistics

from rich.console import Console
from rich.table import Table

from fakes import EOS, make_sequence
from seqserve.batch import Batch, Outcome
from seqserve.intake import SchedulerLimits
from seqserve.scheduler import Scheduler
from seqserve.search_state import Candidate
from seqserve.sequence import Sequence

STEP, ROW = 0.0025, 0.000265
PASS, TOKEN = 0.0025, 0.000083
NUM_INPUTS = 1500
_limits = functools.partial(SchedulerLimits, max_batch_size=64, max_batch_tokens=1024)
POLICIES = {
    "strict alternation (before)": _limits(max_stall_tokens=4096, max_held_steps=0),
    "stall 256": _limits(max_stall_tokens=256, max_held_steps=0),
    "stall 512": _limits(max_stall_tokens=512, max_held_steps=0),
    "stall 1024": _limits(max_stall_tokens=1024, max_held_steps=0),
    "stall 512, hold 4 for 1/16": _limits(held_part=16, max_held_steps=4),
    "stall 512, hold 4 for 1/8": _limits(held_part=8, max_held_steps=4),
    "stall 512, hold 8 for 1/8": _limits(held_part=8, max_held_steps=8),
    "stall 512, hold 16 for 1/4": _limits(held_part=4, max_held_steps=16),
    "stall 1024, hold 8 for 1/8": _limits(max_stall_tokens=1024, max_held_steps=8),
    "stall 512, hold 8 for 1/8, 128 rows": _limits(max_batch_size=128),
    "stall 512, hold 8 for 1/8, 48 to 128 rows": _limits(
        max_batch_size=128, preferred_batch_size=48
    ),
}


@dataclasses.dataclass
class Run:
    """What one simulation came to."""

    seconds: float
    latencies: list[float]
    longest_stall: float
    num_passes: int

    @property
    def rate(self) -> float:
        """Inputs a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, part: float) -> float:
        """A latency."""
        return statistics.quantiles(self.latencies, n=100)[round(100 * part) - 1]


def make_inputs(seed: int, rate: float | None) -> tuple[list[Sequence], dict[Sequence, int]]:
    """Inputs in order of arrival, and the length of each one's target."""
    chance = random.Random(seed)
    now, sequences, target_lengths = 0.0, [], {}
    for _ in range(NUM_INPUTS):
        if rate is not None:
            now += chance.expovariate(rate)
        length = 400 if chance.random() < 0.02 else chance.randint(5, 60)
        sequence = make_sequence(range(length), max_new_tokens=512, submitted_at=now)
        sequences.append(sequence)
        target_lengths[sequence] = max(1, round(length * chance.uniform(0.7, 1.3)))
    return sequences, target_lengths


def simulate(limits: SchedulerLimits, seed: int, rate: float | None) -> Run:
    """Runs all inputs on a clock of its own."""
    arrivals, target_lengths = make_inputs(seed, rate)
    scheduler = Scheduler("encode", limits)
    run = Run(0.0, [], 0.0, 0)
    now, decoded_at, next_arrival = 0.0, None, 0
    while len(run.latencies) < NUM_INPUTS:
        while next_arrival < NUM_INPUTS and arrivals[next_arrival].submitted_at <= now:
            scheduler.add(arrivals[next_arrival])
            next_arrival += 1
        batch = scheduler.next_batch(now)
        if batch is None:
            now, decoded_at = arrivals[next_arrival].submitted_at, None
            continue
        if batch.phase == "encode":
            run.num_passes += 1
            seconds = PASS + TOKEN * batch.padded_tokens
        else:
            if decoded_at is not None:
                run.longest_stall = max(run.longest_stall, now - decoded_at)
            seconds = STEP + ROW * batch.num_rows
        now += seconds
        for event in scheduler.update(batch, decode(batch, target_lengths), now):
            run.latencies.append(now - event.sequence.submitted_at)
        if batch.phase == "decode":
            decoded_at = now if scheduler.num_running else None
    run.seconds = now
    return run


def decode(batch: Batch, target_lengths: dict[Sequence, int]) -> list[Outcome]:
    """A token for each sequence, the end token when its target is long enough."""
    if batch.phase == "encode":
        return [None] * len(batch.sequences)
    outcomes: list[Outcome] = []
    for sequence in batch.sequences:
        assert sequence.search is not None
        is_last = sequence.search.target_length + 1 >= target_lengths[sequence]
        outcomes.append([Candidate(0, EOS if is_last else 10, 0.0, 0.0)])
    return outcomes


def main() -> None:
    """Prints a line for each policy."""
    table = Table("policy", "offline", "passes", "load", "p50", "p95", "longest stall")
    full_rate = simulate(POLICIES["strict alternation (before)"], 1, None).rate
    for name, limits in POLICIES.items():
        offline = simulate(limits, 1, None)
        for load in (0.6, 0.97):
            online = simulate(limits, 2, load * full_rate)
            table.add_row(
                name,
                f"{offline.rate:.1f}/s",
                str(offline.num_passes),
                f"{load:.0%}",
                f"{online.percentile(0.5) * 1000:.0f} ms",
                f"{online.percentile(0.95) * 1000:.0f} ms",
                f"{online.longest_stall * 1000:.0f} ms",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
