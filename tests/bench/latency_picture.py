"""The picture of the decode benchmark: throughput against latency of both servers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

_SIDES = (("seqserve", "seqserve", "tab:blue"), ("peer", "CTranslate2 server", "tab:orange"))


def draw(online: Mapping[str, Any], path: Path) -> None:
    """Draws throughput against latency of all online trials; hollow marks did not hold."""
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for key, label, color in _SIDES:
        trials = sorted(online["trials"][key], key=lambda trial: trial["target_tokens_per_second"])
        held = [trial for trial in trials if trial["is_sustained"]]
        failed = [trial for trial in trials if not trial["is_sustained"]]
        for name, style, marker in (("p50", "--", "o"), ("p95", "-", "s")):
            field = f"{name}_seconds"
            axes.plot(
                [trial["target_tokens_per_second"] for trial in held],
                [trial[field] for trial in held],
                linestyle=style,
                marker=marker,
                color=color,
                label=f"{label}, {name}",
            )
            axes.plot(
                [trial["target_tokens_per_second"] for trial in failed],
                [trial[field] for trial in failed],
                linestyle="none",
                marker=marker,
                markerfacecolor="none",
                color=color,
            )
    axes.axhline(online["limit_seconds"], color="gray", linewidth=1)
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.set_xlabel("target tokens a second")
    axes.set_ylabel("latency of a request in seconds")
    axes.set_title("Poisson arrivals, one sentence a request; hollow: the rate did not hold")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
