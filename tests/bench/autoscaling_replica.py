"""A replica for simulations: how long its calls take follows from measured steps.

Calls are fluid: those of a moment go on together, and what a row gets of the processor depends on
how many there are. The times of steps and passes are those of a full run of the decode benchmark
(``DECODING``: an OPUS-MT model in int8 on 2 cores), read off between the measured numbers of rows.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DECODING = RESULTS / "decode_other_machine.json"
"""Whose steps and arrivals were measured at about the same speed of the machine. Made of the steps
of ``decode.json``, a simulated call takes a third of the measured one."""
TARGET_TOKENS = 24
"""Of a call, as in the benchmark."""
_ENCODED_TOGETHER = 16
"""Sources of an encoder pass while others are decoding, of about 512 tokens (max_stall_tokens)."""
_LANES = 2


@dataclasses.dataclass(frozen=True)
class Costs:
    """What calls cost a replica."""

    rows: tuple[int, ...]
    """Numbers of rows that were measured."""
    step_seconds: tuple[float, ...]
    encode_seconds: float
    """Of one source among others."""

    @classmethod
    def read(cls) -> Costs:
        """Those of the benchmark."""
        parts: dict[str, Any] = json.loads(DECODING.read_text("utf-8"))["parts"]
        measured = parts["growth"]["rows"]
        (together,) = [one for one in measured if one["num_rows"] == _ENCODED_TOGETHER]
        return cls(
            rows=tuple(one["num_rows"] for one in measured),
            step_seconds=tuple(one["step_seconds"] for one in measured),
            encode_seconds=together["encode_seconds"] / _ENCODED_TOGETHER,
        )

    def step(self, num_rows: float) -> float:
        """Seconds of a step with so many rows."""
        num_rows = min(max(num_rows, self.rows[0]), self.rows[-1])
        index = max(1, bisect.bisect_left(self.rows, num_rows))
        low, high = self.rows[index - 1], self.rows[index]
        part = (num_rows - low) / (high - low)
        return self.step_seconds[index - 1] * (1 - part) + self.step_seconds[index] * part

    def most_calls(self, num_rows: int) -> float:
        """Calls a second with so many rows all the time."""
        return 1 / (self.encode_seconds + TARGET_TOKENS * self.step(num_rows) / num_rows)


class Replica:
    """Calls that run on one server, or wait there."""

    def __init__(self, costs: Costs, max_outstanding: int = 2048) -> None:
        self.num_outstanding = 0.0
        self.mean_outstanding = 0.0
        """In the last step of time."""
        self.busy = 0.0
        """Part of its processors that the last step of time took."""
        self.num_refused = 0.0
        self._encode_seconds, self._max_outstanding = costs.encode_seconds, max_outstanding
        # By the number of calls; where there are more than rows, they take turns.
        self._rates = [
            1 / (costs.step(number) * max(1.0, number / costs.rows[-1]))
            for number in range(max_outstanding + 1)
        ]
        self._progress = 0.0
        """Tokens that a call which was always there would have."""
        self._calls: collections.deque[tuple[float, float, float]] = collections.deque()
        """Progress at which they are done, when they came, how many."""

    def advance(self, now: float, seconds: float, arrivals: float) -> list[tuple[float, float]]:
        """A step of time; latencies in seconds of the calls that are done, and how many of each."""
        accepted = min(arrivals, max(0.0, self._max_outstanding - self.num_outstanding))
        self.num_refused += arrivals - accepted
        calls = self._calls
        # Who comes in this step of time comes little by little: how many there are at a time is as
        # before it.
        num_together = max(self.mean_outstanding, self.num_outstanding)
        if accepted:
            calls.append((self._progress + TARGET_TOKENS, now + seconds / 2, accepted))
            self.num_outstanding += accepted
        if not calls:
            self.busy = self.mean_outstanding = 0.0
            return []
        # Passes stop decoding meanwhile; but for them a row gets a token with each step.
        encoding = min(0.9, accepted / seconds * self._encode_seconds)
        rate = (1 - encoding) * self._rates[min(round(num_together), self._max_outstanding)]
        before = self._progress
        self._progress = progress = before + rate * seconds
        done, present = [], 0.0
        while calls and calls[0][0] <= progress:
            target, arrived, number = calls.popleft()
            self.num_outstanding -= number
            finished = now + (target - before) / rate
            latency = max(finished - arrived, TARGET_TOKENS / rate)
            present += number * min(latency, seconds)
            done.append((latency, number))
        if not calls:
            self.num_outstanding = 0.0  # of roundings
        self.mean_outstanding = self.num_outstanding + present / seconds
        self.busy = 1 - math.exp(-self.mean_outstanding / _LANES)
        return done
