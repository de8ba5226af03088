"""Decides at once whether a request may enter: a bounded amount of work, or a refusal.

Work is counted here, after a request has been read and checked, and not by gRPC's own limit, which
counts health checks and requests that never arrive.
"""

import asyncio
import threading
from typing import Self

from seqserve.errors import OverloadedError


class Admission:
    """The outstanding sequences of one model."""

    def __init__(self, max_outstanding: int) -> None:
        self._max_outstanding = max_outstanding
        self._num_outstanding = 0
        self._lock = threading.Lock()
        self._given_back = asyncio.Event()

    @property
    def num_outstanding(self) -> int:
        """Sequences admitted and not yet answered."""
        return self._num_outstanding

    def admit(self, num_sequences: int) -> "Places":
        """Takes places for the sequences of one request, to hold while it is being answered.

        Raises:
            OverloadedError: The places are taken; all of them or none are given.
        """
        with self._lock:
            if self._num_outstanding + num_sequences > self._max_outstanding:
                raise OverloadedError(
                    f"{self._num_outstanding} inputs are being worked on and {num_sequences} more "
                    f"would exceed the limit of {self._max_outstanding}; try again later",
                    retry_after_seconds=1.0,
                )
            self._num_outstanding += num_sequences
        return Places(self, num_sequences)

    def give_back(self, num_sequences: int) -> None:
        """Frees places; for :class:`Places`, which does so once."""
        with self._lock:
            self._num_outstanding -= num_sequences
        self._given_back.set()

    async def wait_until_idle(self) -> None:
        """Waits until no place is held; new requests can keep it waiting. Event loop only."""
        while self._num_outstanding:
            self._given_back.clear()
            await self._given_back.wait()


class Places:
    """The places of one request; given back when the block ends, or before."""

    def __init__(self, admission: Admission, num_sequences: int) -> None:
        self._admission = admission
        self._num_held = num_sequences

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Gives the places back; a second time does nothing. Event loop only."""
        num_held, self._num_held = self._num_held, 0
        self._admission.give_back(num_held)
