"""When callers that were refused should come back: in turns, as fast as work is being done.

How fast what is held comes free is measured while any is held. A request is told when what it lacks
will be free at that rate, behind those refused before it: told the same time, all would come back
at once and be refused again. Nobody is told to wait longer than all that is held takes, since not
everybody does come back.
"""

import math

_MEMORY_SECONDS = 5.0
"""After so long under load a measurement counts for a third."""
_UNKNOWN_SECONDS = 1.0
"""Told as long as nothing has come free yet."""
_LEAST_SECONDS = 0.01
_MOST_SECONDS = 60.0


class Pushback:
    """The rate of one limit, and the turns that were given out. Times are passed in, in seconds."""

    def __init__(self) -> None:
        self._num_freed = 0.0
        self._busy_seconds = 0.0
        self._observed_at = -math.inf
        self._last_turn = -math.inf

    @property
    def drain_rate(self) -> float:
        """What comes free in a second of load, lately; 0.0 while nobody knows."""
        return self._num_freed / self._busy_seconds if self._busy_seconds else 0.0

    def observe(self, now: float, *, num_held: int, num_freed: int = 0) -> None:
        """Takes in that something is to be taken, or has come free.

        Args:
            now: The time.
            num_held: What was held until now.
            num_freed: What of it comes free.
        """
        if num_held and now > self._observed_at:
            seconds = now - self._observed_at
            kept = math.exp(-seconds / _MEMORY_SECONDS)
            self._num_freed *= kept
            # Seconds fade as what came free in them does.
            self._busy_seconds = self._busy_seconds * kept + _MEMORY_SECONDS * (1 - kept)
        self._observed_at = now
        self._num_freed += num_freed

    def refuse(self, now: float, *, num_wanted: int, num_held: int, limit: int) -> float:
        """Gives out a turn; returns the seconds until it comes.

        Args:
            now: The time.
            num_wanted: What the request wants, more than is free.
            num_held: What is held.
            limit: What can be held.
        """
        rate = self.drain_rate
        if not rate:
            return _UNKNOWN_SECONDS
        earliest = now + (num_held + num_wanted - limit) / rate
        turn = max(earliest, self._last_turn + num_wanted / rate)
        self._last_turn = min(turn, now + num_held / rate)
        return min(max(self._last_turn - now, _LEAST_SECONDS), _MOST_SECONDS)
