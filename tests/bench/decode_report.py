"""Ratios of the decode benchmark with their targets."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

_SEARCHES = ("greedy", "beam4")


class Target(NamedTuple):
    """What a ratio should be."""

    bound: float
    is_upper: bool = False
    """Whether lower is better."""

    def is_met(self, ratio: float) -> bool:
        """Whether a ratio is as good."""
        return ratio <= self.bound if self.is_upper else ratio >= self.bound

    def __str__(self) -> str:
        return f"{'at most' if self.is_upper else 'at least'} {self.bound:g}"


TARGETS = {
    "offline_greedy": Target(1.3),
    "offline_beam4": Target(1.2),
    "online_throughput": Target(2.0),
    "single_stream_time": Target(0.75, is_upper=True),
    "rss": Target(1.5, is_upper=True),
    "server_efficiency": Target(0.9),
    "vs_transformers": Target(5.0),
}


class _Row(NamedTuple):
    """One ratio with what it is made of."""

    name: str
    ours: float
    peer: float
    unit: str
    what: str

    @property
    def ratio(self) -> float:
        return self.ours / self.peer


def make_ratios(parts: Mapping[str, Any]) -> dict[str, float]:
    """Every ratio that the measured parts allow: ours over the peer's."""
    return {row.name: row.ratio for row in _make_rows(parts)}


def _make_rows(parts: Mapping[str, Any]) -> list[_Row]:
    rows: list[_Row] = []
    makers: dict[str, Callable[[Any], list[_Row]]] = {
        "offline": _offline_rows,
        "online": _online_rows,
        "single": _single_rows,
        "efficiency": lambda part: [
            _speed_row("server_efficiency", part, "engine", "gRPC against the engine alone")
        ],
        "transformers": lambda part: [
            _speed_row("vs_transformers", part, "transformers", "greedy, peer transformers")
        ],
    }
    for name, make in makers.items():
        if name in parts:
            rows += make(parts[name])
    return rows


def _offline_rows(part: Any) -> list[_Row]:
    return [
        _speed_row(f"offline_{search}", part[search], "ctranslate2", f"offline, {search}")
        for search in _SEARCHES
    ]


def _speed_row(name: str, part: Any, peer: str, what: str) -> _Row:
    speeds = part["tokens_per_second"]
    ours, theirs = statistics.median(speeds["seqserve"]), statistics.median(speeds[peer])
    return _Row(name, ours, theirs, "tokens/s", what)


def _online_rows(part: Any) -> list[_Row]:
    ours, peer = part["max_trials"]["seqserve"], part["max_trials"]["peer"]
    memory = part["memory"]
    return [
        _Row(
            "online_throughput",
            ours["rate"],
            peer["rate"],
            "requests/s",
            f"highest rate with p95 below {part['limit_seconds']:g} s",
        ),
        _Row(
            "rss",
            memory["seqserve"]["resident_bytes"] / 2**20,
            memory["peer"]["resident_bytes"] / 2**20,
            "MiB",
            "resident after the load, both servers",
        ),
    ]


def _single_rows(part: Any) -> list[_Row]:
    medians = {name: statistics.median(values) for name, values in part["seconds"].items()}
    return [
        _Row(
            "single_stream_time",
            medians["seqserve"] * 1000,
            medians["library"] * 1000,
            "ms",
            f"one sentence of {part['length']} tokens, peer a library",
        )
    ]


def print_report(parts: Mapping[str, Any], console: Console) -> None:
    """Prints ratios with their targets, further figures, and which targets are missed."""
    table = Table("ratio", "what", "seqserve", "peer", "ours / peer", "target", "")
    missed = []
    for row in _make_rows(parts):
        target = TARGETS[row.name]
        is_met = target.is_met(row.ratio)
        if not is_met:
            missed.append(f"{row.name} is {row.ratio:.2f}, not {target}")
        table.add_row(
            row.name,
            row.what,
            f"{row.ours:,.1f} {row.unit}",
            f"{row.peer:,.1f} {row.unit}",
            f"{row.ratio:.2f}",
            str(target),
            "[green]met[/]" if is_met else "[red]missed[/]",
        )
    console.print(table)
    for line in _further_lines(parts):
        console.print(line, highlight=False)
    not_measured = [name for name in TARGETS if name not in make_ratios(parts)]
    verdict = "; ".join(missed) if missed else "none of those measured"
    console.print(f"targets missed: {verdict}", highlight=False)
    if not_measured:
        console.print("not measured: " + ", ".join(not_measured), highlight=False)


def _further_lines(parts: Mapping[str, Any]) -> list[str]:
    lines = []
    if "offline" in parts:
        shares = [
            f"{search} {parts['offline'][search]['token_agreement']:.1%}" for search in _SEARCHES
        ]
        lines.append(
            "tokens equal to CTranslate2's up to the first difference: " + ", ".join(shares)
        )
    if "single" in parts:
        part = parts["single"]
        medians = {name: statistics.median(values) for name, values in part["seconds"].items()}
        loads = {name: statistics.median(values) for name, values in part["load_seconds"].items()}
        lines.append(
            f"one sentence behind the peer's server: {medians['peer_server'] * 1000:.0f} ms; first "
            f"token: {medians['seqserve_first_token'] * 1000:.0f} ms over gRPC, peer as a library "
            f"{medians['library_first_token'] * 1000:.0f} ms"
        )
        lines.append(
            f"start to first answer: {loads['seqserve']:.1f} s, peer {loads['peer_server']:.1f} s"
        )
    if "online" in parts:
        part = parts["online"]
        trials = [
            (f"{side} at {share} of {whose} maximum", trial)
            for group, whose in (("at_own_maximum", "its own"), ("at_peer_maximum", "the peer's"))
            for side, by_share in part[group].items()
            for share, trial in by_share.items()
            if group == "at_own_maximum" or side == "seqserve" or share == "100%"
        ]
        # Parts that were measured before have no peaks.
        peaks = [
            memory["peak_bytes"] / 2**20
            for memory in part["memory"].values()
            if "peak_bytes" in memory
        ]
        if peaks:
            lines.append("most ever resident: {:,.0f} MiB, peer {:,.0f} MiB".format(*peaks))
        lines += [
            f"{name}: {trial['rate']:.1f} requests/s, p50 {trial['p50_seconds'] * 1000:.0f}, "
            f"p95 {trial['p95_seconds'] * 1000:.0f}, p99 {trial['p99_seconds'] * 1000:.0f} ms"
            for name, trial in trials
        ]
    if "growth" in parts:
        lines.append(
            "live rows: "
            + ", ".join(
                f"{step['num_rows']}: {step['step_seconds'] * 1000:.1f} ms, "
                f"{step['tokens_per_second']:,.0f} tokens/s"
                for step in parts["growth"]["rows"]
            )
        )
        lines.append(
            "source lengths: "
            + ", ".join(
                f"{step['source_length']}: {step['step_seconds'] * 1000:.1f} ms"
                for step in parts["growth"]["source_lengths"]
            )
        )
    return lines
