"""What a load came to: how its calls ended, how many there were, how long they took."""

import collections
from collections.abc import Sequence as Items
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from seqserve.commands.bench_load import Load, Outcome

_PERCENTILES = (50, 90, 95, 99)
_DURATIONS = {
    "latency_seconds": "latency",
    "first_token_seconds": "first token",
    "inter_token_seconds": "between tokens",
    "queue_seconds": "server: queue",
    "encode_seconds": "server: encode",
    "decode_seconds": "server: decode",
}
"""Keys of the report and what they are called; those of the server are of each input."""
_RATES = {
    "calls_per_second": "calls/s",
    "inputs_per_second": "inputs/s",
    "tokens_per_second": "tokens/s",
}


def summarize(load: Load, outcomes: Items[Outcome], until_seconds: float) -> dict[str, Any]:
    """The report, as JSON has it.

    Latencies and codes are those of calls that were due after the warm-up; what there was a second
    counts the answers that came after it, whenever their calls were due.

    Args:
        load: What was asked for.
        outcomes: Of its calls.
        until_seconds: When it ended, or was interrupted.
    """
    begin, end = load.warmup_seconds, min(load.total_seconds, until_seconds)
    seconds = max(0.0, end - begin)
    measured = [one for one in outcomes if one.due_at >= begin]
    answers = [one.answer for one in measured if one.answer is not None]
    ended = [
        one.answer for one in outcomes if one.answer is not None and begin <= one.ended_at <= end
    ]
    timings = [timing for answer in answers for timing in answer.timings]
    counts = {
        "calls_per_second": len(ended),
        "inputs_per_second": sum(answer.input_count for answer in ended),
        "tokens_per_second": sum(answer.token_count for answer in ended),
    }
    durations: dict[str, list[float]] = {
        "latency_seconds": [one.ended_at - one.due_at for one in measured if one.code == "OK"],
        "first_token_seconds": [
            answer.first_token_seconds
            for answer in answers
            if answer.first_token_seconds is not None
        ],
        "inter_token_seconds": [gap for answer in answers for gap in answer.inter_token_seconds],
        "queue_seconds": [timing.queue_seconds for timing in timings],
        "encode_seconds": [timing.encode_seconds for timing in timings],
        "decode_seconds": [timing.decode_seconds for timing in timings],
    }
    messages: dict[str, str] = {}
    for one in measured:
        if one.code != "OK":
            messages.setdefault(one.code, one.message)
    return {
        "measured_seconds": round(seconds, 3),
        "codes": dict(collections.Counter(one.code for one in measured).most_common()),
        "messages": messages,
        **{key: count / seconds if seconds else 0.0 for key, count in counts.items()},
        **{key: spread for key, values in durations.items() if (spread := _spread(values))},
        "truncated_token_count": sum(answer.truncated_token_count for answer in answers),
        "cached_share": sum(timing.is_cached for timing in timings) / max(1, len(timings)),
        "max_lag_seconds": max((one.sent_at - one.due_at for one in measured), default=0.0),
    }


def _spread(values: list[float]) -> dict[str, float]:
    """Mean, percentiles and maximum; empty of nothing, or of nothing but zeros."""
    if not any(values):
        return {}
    percentiles = np.percentile(values, _PERCENTILES).tolist()
    return {
        "mean": float(np.mean(values)),
        **{f"p{percent}": value for percent, value in zip(_PERCENTILES, percentiles, strict=True)},
        "max": max(values),
    }


def to_tables(report: dict[str, Any]) -> list[Table]:
    """How calls ended, with what there was a second, and how long everything took."""
    num_calls = sum(report["codes"].values())
    ends = Table("code", "calls", "share", "the first of them said", box=None, pad_edge=False)
    for code, count in report["codes"].items():
        message = Text(report["messages"].get(code, ""))
        ends.add_row(code, f"{count:,}", f"{count / num_calls:.1%}", message)
    for column in ends.columns[1:3]:
        column.justify = "right"
    rates = Table(*_RATES.values(), box=None, pad_edge=False)
    rates.add_row(*(f"{report[key]:,.1f}" for key in _RATES))
    times = Table(box=None, pad_edge=False)
    times.add_column("milliseconds", no_wrap=True)
    for name in ("mean", *(f"p{percent}" for percent in _PERCENTILES), "max"):
        times.add_column(name, justify="right", no_wrap=True)
    for key, name in _DURATIONS.items():
        if key in report:
            times.add_row(name, *(f"{seconds * 1000:,.2f}" for seconds in report[key].values()))
    return [ends, rates, times]
