"""The way of events from a worker's thread to the event loop, where futures are answered."""

import asyncio
from collections.abc import Callable

import structlog

from seqserve.errors import EngineError
from seqserve.event import Event

_log = structlog.get_logger(__name__)


class Delivery:
    """Hands over the events of one worker."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where futures are answered; set before anything is handed over."""

    def deliver(self, events: list[Event]) -> None:
        """Hands events over; the faults of single sequences are logged here, and only here."""
        for event in events:
            if isinstance(event.answer, EngineError):
                _log.error(
                    "sequence failed",
                    model=self._name,
                    request_id=event.sequence.request_id,
                    error=str(event.answer),
                    exc_info=event.answer.__cause__,
                )
        self.hand_over(events)

    def hand_over(self, events: list[Event]) -> None:
        """Has futures answered, of whose faults the log knows already."""
        if events:
            assert self.loop is not None
            self.loop.call_soon_threadsafe(self._resolve, events)

    def call(self, callback: Callable[[], None]) -> None:
        """Has something called on the event loop, behind what was handed over."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(callback)

    def _resolve(self, events: list[Event]) -> None:
        """Answers futures; runs on the event loop, where alone they may be touched."""
        for event in events:
            sequence, future = event.sequence, event.sequence.future
            assert isinstance(future, asyncio.Future)
            answer = event.answer
            if event.tokens and sequence.on_tokens is not None and not future.done():
                try:
                    sequence.on_tokens(event.tokens)
                except BaseException as error:  # the events behind it are of other callers
                    _log.exception(
                        "stream failed", model=self._name, request_id=sequence.request_id
                    )
                    answer = EngineError(f"{type(error).__name__} in on_tokens")
            if future.done():  # the caller has gone
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            elif answer is not None:
                future.set_result(answer)
