"""Whose pass is next where one runs at a time: as in any queue of the server."""

import asyncio
import time

from seqserve.sequence import Priority, Sequence
from seqserve.waiting_queue import WaitingQueue


class PassTurns:
    """Turns of passes, by :class:`WaitingQueue`: classes, ageing, shares of callers.

    Event loop only.
    """

    def __init__(self, ageing_seconds: float) -> None:
        self._waiting = WaitingQueue(ageing_seconds)
        self._is_taken = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def take(self, tokens: tuple[int, ...], priority: Priority, caller: str) -> None:
        """Waits for a turn, which ends with ``give_back``.

        Args:
            tokens: What is computed, as the work that callers share by.
            priority: Its class.
            caller: Whose share it is of.
        """
        if not self._is_taken:
            self._is_taken = True
            return
        turn = asyncio.get_running_loop().create_future()
        waiting = Sequence(
            source_tokens=tokens,
            future=turn,
            priority=priority,
            caller=caller,
            submitted_at=time.monotonic(),
        )
        self._waiting.add(waiting)
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting.remove([waiting])
            if not turn.cancelled():  # it had just come
                self.give_back()
            raise

    def give_back(self) -> None:
        """Ends a turn; the next one begins."""
        while len(self._waiting):
            ((_, waiting),) = self._waiting.next_turns(time.monotonic(), 1)
            self._waiting.take([waiting])
            turn = waiting.future
            assert isinstance(turn, asyncio.Future)
            if not turn.done():  # else its caller has left just now
                turn.set_result(None)
                return
        self._is_taken = False
