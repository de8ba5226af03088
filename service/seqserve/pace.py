"""How fast a model has been lately: the least time that work can be expected to take.

Deadlines that cannot be met are refused by it, so it errs on the fast side: of the latest
measurements the fastest counts, and old ones are forgotten. Else a machine that stood still for a
moment would refuse everything and never learn better. Of decode steps those with the fewest rows
count: neighbours leave, and what they cost is not needed.
"""

from collections import deque
from typing import NamedTuple

from seqserve.batch import Batch

_NUM_KEPT = 16
"""Latest encoder passes, and decode steps of about as many rows, that count."""
_MAX_AGE_SECONDS = 10.0
_LEAST_TOKENS = 128
"""Of an encoder pass: what smaller ones take is mostly not for their tokens."""


class Estimate(NamedTuple):
    """The least seconds that steps take; 0 when nobody knows."""

    token_seconds: float = 0.0
    """An encoder pass, for each source token."""
    step_seconds: float = 0.0
    """A decode step of one row."""


UNKNOWN = Estimate()


class Pace:
    """The latest measurements of one model."""

    def __init__(self) -> None:
        self._tokens: deque[tuple[float, float]] = deque(maxlen=_NUM_KEPT)
        self._steps: dict[int, deque[tuple[float, float]]] = {}
        """By the bits of the number of rows: steps of 1 row, of 2 to 3, of 4 to 7 and so on."""

    def observe(self, batch: Batch, seconds: float, now: float) -> None:
        """Takes in how long a batch took."""
        if batch.phase == "decode":
            # A step of fewer rows may be faster, but not by more than rows are fewer.
            num_bits = batch.num_rows.bit_length()
            steps = self._steps.setdefault(num_bits, deque(maxlen=_NUM_KEPT))
            steps.append((now, seconds / batch.num_rows))
        elif batch.padded_tokens >= _LEAST_TOKENS:
            self._tokens.append((now, seconds / batch.padded_tokens))

    def estimate(self, now: float) -> Estimate:
        """What the measurements say."""
        steps = (_fastest(self._steps[num_bits], now) for num_bits in sorted(self._steps))
        return Estimate(_fastest(self._tokens, now), next(filter(None, steps), 0.0))


def _fastest(measurements: deque[tuple[float, float]], now: float) -> float:
    while measurements and measurements[0][0] < now - _MAX_AGE_SECONDS:
        measurements.popleft()
    return min((seconds for _, seconds in measurements), default=0.0)
