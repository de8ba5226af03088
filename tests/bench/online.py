"""One sentence a request, Poisson arrivals: the highest rate of both servers, and latencies.

Both are searched in turn, trial by trial, by the same load generator with the same sentences and
the same arrivals, scaled to the rate.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from bench.extent import Extent
from bench.json_process import JsonProcess
from bench.opus_checkpoint import OpusModel
from bench.rate_search import RateSearch
from bench.server_process import running_peer, running_seqserve
from bench.workload import MeasurementError

LIMIT_SECONDS = 2.0
"""Of the 95th percentile."""
_BURST = 96
_FIRST_SHARE = 0.5
"""Of the rate at which a burst is answered, to begin the search with."""
_SHARES = (0.5, 0.8)
_THREADS = ((1, 2), (2, 1))


class _Side:
    """One server under load."""

    def __init__(self, name: str, target: str, generator: JsonProcess, extent: Extent) -> None:
        self.name = name
        self.trials: list[dict[str, Any]] = []
        self._target = target
        self._generator = generator
        self._extent = extent
        generator.call("run_burst", target=target, num_sentences=_BURST // 2)  # warm up
        burst = generator.call("run_burst", target=target, num_sentences=_BURST)
        self._search = RateSearch(
            _FIRST_SHARE * burst,
            factor=extent.rate_factor,
            num_bisections=extent.num_bisections,
        )

    @property
    def max_rate(self) -> float:
        """The highest rate that held.

        Raises:
            MeasurementError: None did.
        """
        if self._search.sustained is None:
            raise MeasurementError(f"{self.name} sustains none of the rates that were tried")
        return self._search.sustained

    def run(self, rate: float) -> dict[str, Any]:
        """One trial."""
        trial: dict[str, Any] = self._generator.call(
            "run_trial",
            target=self._target,
            rate=rate,
            seconds=self._extent.trial_seconds,
            warmup_seconds=self._extent.warmup_seconds,
            limit_seconds=LIMIT_SECONDS,
            seed=len(self.trials),
        )
        self.trials.append(trial)
        return trial

    def search_once(self) -> bool:
        """One trial of the search; False when it has ended."""
        rate = self._search.next_rate()
        if rate is None:
            return False
        self._search.update(rate, is_sustained=self.run(rate)["is_sustained"])
        return True


def measure_online(
    model: OpusModel, settings: Mapping[str, str], extent: Extent, console: Console
) -> dict[str, Any]:
    """All trials, highest rates, latencies at shares of them, and memory after the load."""
    with JsonProcess("bench.load_generator") as generator:
        inter_threads, intra_threads = threads = _choose_threads(model, generator)
        with (
            running_seqserve(model, settings) as server,
            running_peer(model, inter_threads, intra_threads) as peer_server,
        ):
            ours = _Side("seqserve", server.target, generator, extent)
            peer = _Side("the peer's server", peer_server.target, generator, extent)
            while any([side.search_once() for side in (ours, peer)]):
                _show(console, ours, peer)
            at_shares: dict[str, dict[str, Any]] = {"seqserve": {}, "peer": {}}
            for share in _SHARES:
                for key, side in (("seqserve", ours), ("peer", peer)):
                    at_shares[key][f"{share:.0%}"] = side.run(share * side.max_rate)
            at_peer_maximum = {
                "seqserve": ours.run(peer.max_rate),
                "peer": peer.run(peer.max_rate),
            }
            memory = {"seqserve": server.memory(), "peer": peer_server.memory()}
    return {
        "limit_seconds": LIMIT_SECONDS,
        "peer_threads": threads,
        "max_trials": {"seqserve": _best(ours), "peer": _best(peer)},
        "at_own_maximum": at_shares,
        "at_peer_maximum": at_peer_maximum,
        "memory": memory,
        "trials": {"seqserve": ours.trials, "peer": peer.trials},
    }


def _choose_threads(model: OpusModel, generator: JsonProcess) -> tuple[int, int]:
    """The threads with which the peer's server answers a burst soonest."""
    rates = {}
    for threads in _THREADS:
        with running_peer(model, *threads) as server:
            for num_sentences in (_BURST // 2, _BURST):  # the first warms up
                rates[threads] = generator.call(
                    "run_burst", target=server.target, num_sentences=num_sentences
                )
    return max(_THREADS, key=rates.__getitem__)


def _best(side: _Side) -> dict[str, Any]:
    """The trial at the highest rate that held."""
    rate = side.max_rate
    return next(t for t in side.trials if t["rate"] == rate and t["is_sustained"])


def _show(console: Console, *sides: _Side) -> None:
    for side in sides:
        trial = side.trials[-1]
        verdict = "holds" if trial["is_sustained"] else "fails"
        console.print(
            f"{side.name}: {trial['rate']:.1f} requests/s {verdict}, "
            f"p95 {trial['p95_seconds'] * 1000:.0f} ms"
        )
