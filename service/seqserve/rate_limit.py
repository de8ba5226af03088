"""How often something may be done: a bucket that fills steadily and is emptied one by one."""

_TOLERANCE = 1e-6
"""What rounding costs when parts of a second are added to a clock."""


class RateLimit:
    """A bucket that starts full. Event loop only."""

    def __init__(self, per_second: float, burst: int) -> None:
        self.per_second = per_second
        """How fast it fills."""
        self.burst = burst
        """How much it holds."""
        self._level = float(burst)
        self._filled_at = 0.0

    def take(self, now: float) -> float:
        """Takes one out if there is one.

        Args:
            now: Seconds on the monotonic clock.

        Returns:
            0.0, or the seconds until there is one; then nothing was taken.
        """
        if now > self._filled_at:
            filled = self._level + (now - self._filled_at) * self.per_second
            self._level, self._filled_at = min(float(self.burst), filled), now
        if self._level < 1 - _TOLERANCE:
            return (1 - self._level) / self.per_second
        self._level -= 1
        return 0.0
