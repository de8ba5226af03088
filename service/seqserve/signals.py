"""SIGTERM and SIGINT, from before the models are opened until the process is gone."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


class LoadingInterrupt(BaseException):
    """A signal to stop came while models were being opened.

    No ``Exception``, like ``KeyboardInterrupt``: the code it interrupts takes those for faults of a
    model's files.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name
        """Of the signal."""


class StopSignals:
    """Takes the signals that ask the process to end.

    Without a handler they would kill it with a failure or, as process 1 of a container, be ignored.
    The handlers stay for good, and are not the event loop's own: those end with the loop, and a
    second signal that arrives while the process is on its way out would then turn its exit code
    into a failure.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._is_interrupting = False
        self._listener: Callable[[int], None] | None = None

    def install(self) -> None:
        """Takes the signals from here on. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Leaves the block when a signal comes, or came before.

        Raises:
            LoadingInterrupt: One did.
        """
        self._is_interrupting = True
        try:
            if self._received is None:
                yield
        finally:
            self._is_interrupting = False
        # Python drops what a handler raises inside a destructor.
        if self._received is not None:
            raise LoadingInterrupt(self._received)

    def listen(self, listener: Callable[[int], None]) -> None:
        """Calls the listener with the number of every signal, also of one that came before."""
        self._listener = listener
        if self._received is not None:
            listener(self._received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if self._is_interrupting:
            self._is_interrupting = False
            raise LoadingInterrupt(number)
        if self._listener is not None:
            self._listener(number)
