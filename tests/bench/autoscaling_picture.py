"""The picture of the simulated autoscalers: replicas, and calls that wait or run, over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

_COLORS = ("tab:orange", "tab:blue")


def draw(content: Mapping[str, Any], path: Path) -> None:
    """Draws the chosen autoscalers over both traffics."""
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(2, len(content["traffics"]), figsize=(13, 7), sharex="col")
    figure.subplots_adjust(wspace=0.35)
    for column, (name, runs) in enumerate(content["traffics"].items()):
        above, below = rows[0][column], rows[1][column]
        chosen = [one for one in runs if "course" in one]
        scale, unit = (3600, "hours") if name == "day" else (60, "minutes")
        for one, color in zip(chosen, _COLORS, strict=True):
            times = [point["second"] / scale for point in one["course"]]
            above.step(times, [point["replicas"] for point in one["course"]], color=color)
            outstanding = [max(1, point["outstanding"]) for point in one["course"]]
            below.plot(times, outstanding, color=color, label=one["target"])
        rates = above.twinx()
        times = [point["second"] / scale for point in chosen[0]["course"]]
        rates.plot(times, [point["rate"] for point in chosen[0]["course"]], color="lightgray")
        rates.set_ylim(bottom=0)
        rates.set_ylabel("calls a second (gray)")
        above.set_ylim(bottom=0)
        above.set_title(name)
        above.set_ylabel("replicas that serve")
        below.set_yscale("log")
        below.set_ylabel("calls that wait or run")
        below.set_xlabel(unit)
        below.legend()
    figure.savefig(path, dpi=110, bbox_inches="tight")
    pyplot.close(figure)
