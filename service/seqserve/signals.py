"""SIGTERM and SIGINT, from before the models are opened until the process is gone."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import structlog

_log = structlog.get_logger(__name__)
_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_LEAVE_SECONDS = 2.0
"""Given to the main thread, once a signal has come, to leave what it is loading."""
STOPPED_EVENT = "stopped while loading models"


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
        for number in _NUMBERS:
            signal.signal(number, self._receive)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Leaves the block when a signal comes, or came before.

        Python calls a handler between two of its own instructions, and a library may take minutes
        to open a graph. What does not leave the block in two seconds ends with the process, and
        exit code 0 all the same: nobody has been served who could lose anything.

        Raises:
            LoadingInterrupt: One did.
        """
        self._is_interrupting = True
        try:
            if self._received is None:
                with _forcing_exit():
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


@contextlib.contextmanager
def _forcing_exit() -> Iterator[None]:
    """Ends the process if the block is not left soon after a signal. Main thread only."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    is_left = threading.Event()

    def watch() -> None:
        while received := reader.recv(1):
            if received[0] in _NUMBERS and not is_left.wait(_LEAVE_SECONDS):
                _log.info(STOPPED_EVENT, signal=signal.Signals(received[0]).name)
                os._exit(0)

    thread = threading.Thread(target=watch, name="forced-exit", daemon=True)
    thread.start()
    # Bytes are written there as soon as a signal arrives, whatever the main thread does.
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        is_left.set()
        signal.set_wakeup_fd(before)
        writer.close()
        thread.join()
        reader.close()
