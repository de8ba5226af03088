"""The search for the highest rate of arrivals that a server sustains: pure, told of each trial."""


class RateSearch:
    """Raises the rate by a factor until it fails, then bisects between the last two.

    Where the first rate fails already, it is lowered by the factor until one holds.
    """

    def __init__(
        self, first_rate: float, *, factor: float, num_bisections: int, max_trials: int = 14
    ) -> None:
        self._rate = first_rate
        self._factor = factor
        self._num_bisections = num_bisections
        self._num_left = max_trials
        self._failed: float | None = None
        self._sustained: float | None = None

    @property
    def sustained(self) -> float | None:
        """The highest rate that held so far."""
        return self._sustained

    def next_rate(self) -> float | None:
        """The rate to try; None at the end."""
        if self._num_left == 0:
            return None
        if self._failed is None or self._sustained is None:
            return self._rate
        if self._num_bisections == 0:
            return None
        return float((self._failed * self._sustained) ** 0.5)

    def update(self, rate: float, *, is_sustained: bool) -> None:
        """Takes in how the trial at a rate ended."""
        self._num_left -= 1
        if self._failed is not None and self._sustained is not None:
            self._num_bisections -= 1
        if is_sustained:
            self._sustained = rate
            self._rate = rate * self._factor
        else:
            self._failed = rate
            self._rate = rate / self._factor
