"""One sentence a request, Poisson arrivals: the highest rate of both servers, and latencies.

Both are searched in turn, trial by trial, by the same load generator with the same sentences and
the same arrivals, scaled to the rate.
"""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from bench.extent import Extent
from bench.json_process import JsonProcess
from bench.opus_checkpoint import OpusModel
from bench.opus_server import running_ours, running_peer
from bench.rate_search import RateSearch
from bench.workload import MeasurementError

LIMIT_SECONDS = 2.0
"""Of the 95th percentile."""
_BURST = 96
_FIRST_SHARE = 0.6
"""Of the rate at which a burst is answered, to begin the search with."""
_SHARES = (0.5, 0.8)
_SHARE_SEED = 100
_THREADS = ((1, 2), (2, 1))
_REST_SECONDS = 12.0
"""Before memory is read, so that what a server gives back when it is idle is not counted, however
long ago its last trial was; the peak counts all."""


class _Side:
    """One server under load."""

    def __init__(self, name: str, target: str, generator: JsonProcess, extent: Extent) -> None:
        self.name = name
        self.trials: list[dict[str, Any]] = []
        self._target = target
        self._generator = generator
        self._extent = extent
        self._num_failures = 0
        generator.call("run_burst", target=target, num_sentences=_BURST // 2)  # warm up
        burst = generator.call("run_burst", target=target, num_sentences=_BURST)
        self._search = RateSearch(
            _FIRST_SHARE * burst,
            factor=extent.rate_factor,
            num_bisections=extent.num_bisections,
        )

    @property
    def best(self) -> dict[str, Any]:
        """The trial of the search with the highest rate that held.

        Raises:
            MeasurementError: None did.
        """
        for trial in self.trials:
            if trial["is_sustained"] and trial["rate"] == self._search.sustained:
                return trial
        raise MeasurementError(f"{self.name} sustains none of the rates that were tried")

    def run(self, rate: float, seed: int) -> dict[str, Any]:
        """One trial; the seed is that of its arrivals."""
        trial: dict[str, Any] = self._generator.call(
            "run_trial",
            target=self._target,
            rate=rate,
            seconds=self._extent.trial_seconds,
            warmup_seconds=self._extent.warmup_seconds,
            limit_seconds=LIMIT_SECONDS,
            seed=seed,
        )
        self.trials.append({"seed": seed, **trial})
        return self.trials[-1]

    def search_once(self) -> bool:
        """One trial of the search; False when it has ended."""
        rate = self._search.next_rate()
        if rate is None:
            return False
        is_sustained = self.run(rate, len(self.trials))["is_sustained"]
        self._num_failures = 0 if is_sustained else self._num_failures + 1
        if is_sustained or self._num_failures == self._extent.num_attempts:
            self._search.update(rate, is_sustained=is_sustained)
            self._num_failures = 0
        return True


def measure_online(
    model: OpusModel, settings: Mapping[str, str], extent: Extent, console: Console
) -> dict[str, Any]:
    """All trials, highest rates, latencies at shares of them, and memory after the load."""
    with JsonProcess("bench.load_generator") as generator:
        inter_threads, intra_threads = threads = _choose_threads(model, generator, extent)
        with (
            running_ours(model, settings) as server,
            running_peer(model, inter_threads, intra_threads) as peer_server,
        ):
            ours = _Side("seqserve", server.target, generator, extent)
            peer = _Side("the peer's server", peer_server.target, generator, extent)
            while tried := [side for side in (ours, peer) if side.search_once()]:
                _show(console, *tried)
            latencies = _compare_latencies(ours, peer)
            time.sleep(_REST_SECONDS)
            memory = {"seqserve": server.memory(), "peer": peer_server.memory()}
    return {
        "limit_seconds": LIMIT_SECONDS,
        "peer_threads": threads,
        "max_trials": {"seqserve": ours.best, "peer": peer.best},
        **latencies,
        "memory": memory,
        "trials": {"seqserve": ours.trials, "peer": peer.trials},
    }


def _compare_latencies(ours: _Side, peer: _Side) -> dict[str, Any]:
    """Trials at shares of each side's own highest rate, and of the peer's."""
    peer_rate = peer.best["rate"]
    own: dict[str, dict[str, Any]] = {"seqserve": {}, "peer": {}}
    at_peer: dict[str, Any] = {}
    for place, share in enumerate(_SHARES):
        name, seed = f"{share:.0%}", _SHARE_SEED + place
        own["seqserve"][name] = ours.run(share * ours.best["rate"], seed)
        own["peer"][name] = peer.run(share * peer_rate, seed)
        at_peer[name] = ours.run(share * peer_rate, seed)
    at_peer["100%"] = ours.run(peer_rate, peer.best["seed"])
    return {
        "at_own_maximum": own,
        "at_peer_maximum": {
            "seqserve": at_peer,
            "peer": {**own["peer"], "100%": peer.best},
        },
    }


def _choose_threads(model: OpusModel, generator: JsonProcess, extent: Extent) -> tuple[int, int]:
    """The threads with which the peer's server answers bursts soonest, at its best."""
    rates = {}
    for threads in _THREADS:
        with running_peer(model, *threads) as server:
            rates[threads] = max(
                generator.call("run_burst", target=server.target, num_sentences=_BURST)
                for _ in range(extent.num_bursts)
            )
    return max(_THREADS, key=rates.__getitem__)


def _show(console: Console, *sides: _Side) -> None:
    for side in sides:
        trial = side.trials[-1]
        verdict = "holds" if trial["is_sustained"] else "fails"
        console.print(
            f"{side.name}: {trial['rate']:.1f} requests/s {verdict}, "
            f"p95 {trial['p95_seconds'] * 1000:.0f} ms"
        )
