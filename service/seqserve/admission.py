"""Decides at once whether a request may enter: a bounded amount of work, or a refusal.

Work is counted here, after a request has been read and checked, and not by gRPC's own limit, which
counts health checks and requests that never arrive. What is counted is inputs and their tokens, of
each model, and the bytes of messages, of the whole server.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Self

from seqserve.errors import OverloadedError
from seqserve.pushback import Pushback


class Admission:
    """What is outstanding of one kind: a place for each unit of it."""

    def __init__(
        self,
        max_outstanding: int,
        *,
        noun: str = "inputs",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_outstanding = max_outstanding
        """How many places there are."""
        self._noun = noun
        self._clock = clock
        self._num_outstanding = 0
        self._pushback = Pushback()
        self._lock = threading.Lock()
        self._given_back = asyncio.Event()

    @property
    def num_outstanding(self) -> int:
        """Places taken and not yet given back."""
        return self._num_outstanding

    def admit(self, num_places: int) -> "Places":
        """Takes places for one request, to hold while it is being answered.

        Raises:
            OverloadedError: The places are taken; all of them or none are given.
        """
        with self._lock:
            now, num_held = self._clock(), self._num_outstanding
            self._pushback.observe(now, num_held=num_held)
            if num_held + num_places > self.max_outstanding:
                retry_after_seconds = self._pushback.refuse(
                    now, num_wanted=num_places, num_held=num_held, limit=self.max_outstanding
                )
                raise OverloadedError(
                    f"{num_held} {self._noun} are being worked on and {num_places} more would "
                    f"exceed the limit of {self.max_outstanding}; try again later",
                    retry_after_seconds=retry_after_seconds,
                )
            self._num_outstanding += num_places
        return Places(self, num_places)

    def give_back(self, num_places: int) -> None:
        """Frees places; for :class:`Places`, which does so once."""
        with self._lock:
            self._pushback.observe(
                self._clock(), num_held=self._num_outstanding, num_freed=num_places
            )
            self._num_outstanding -= num_places
        self._given_back.set()

    async def wait_until_idle(self) -> None:
        """Waits until no place is held; new requests can keep it waiting. Event loop only."""
        while self._num_outstanding:
            self._given_back.clear()
            await self._given_back.wait()


class Places:
    """The places of one request; given back when the block ends, or before."""

    def __init__(self, admission: Admission, num_places: int) -> None:
        self._admission = admission
        self._num_held = num_places

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def resize(self, num_places: int) -> None:
        """Takes more places, or gives some back, so that so many are held. Event loop only.

        Raises:
            OverloadedError: There are not so many; those that were held still are.
        """
        if num_places < self._num_held:
            self.release(self._num_held - num_places)
        elif num_places > self._num_held:
            self._admission.admit(num_places - self._num_held)
            self._num_held = num_places

    def release(self, num_places: int | None = None) -> None:
        """Gives places back: so many, or all that are left. Event loop only."""
        num_given = self._num_held if num_places is None else num_places
        self._num_held -= num_given
        self._admission.give_back(num_given)
