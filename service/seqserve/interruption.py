"""The end of a forward pass that nobody waits for any more, before it is computed.

A decode step is over soon; an encoder pass over long texts may take seconds. What runs is ended
when the callers of all its sequences have gone, because of a deadline or of their own accord.
"""

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence as Items
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from seqserve.errors import PassInterruptedError
from seqserve.sequence import Sequence

_MUTE = 4
"""onnxruntime's level "fatal": it would write an error to the log for every pass that is ended."""


class Interruption:
    """Of the passes of one worker."""

    def __init__(self) -> None:
        self._pass: tuple[Items[Sequence], onnxruntime.RunOptions] | None = None

    def begin(self, sequences: Items[Sequence]) -> onnxruntime.RunOptions:
        """The options to run a pass of these sequences with; worker thread only."""
        options = make_options()
        self._pass = (sequences, options)
        self.look()  # the last caller may have gone since the batch was chosen
        return options

    def end(self) -> None:
        """Takes note that the pass is over; worker thread only."""
        self._pass = None

    def look(self) -> None:
        """Ends the pass if nobody waits for it; on the event loop, when a caller has gone."""
        current = self._pass
        if current is not None and all(sequence.future.done() for sequence in current[0]):
            current[1].terminate = True


def make_options() -> onnxruntime.RunOptions:
    """Options of a pass that may be ended by their ``terminate``."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = _MUTE
    return options


def run_interruptibly(
    session: onnxruntime.InferenceSession,
    outputs: list[str],
    feeds: dict[str, NDArray[Any]],
    options: onnxruntime.RunOptions | None,
) -> list[NDArray[Any]]:
    """Runs a session.

    Raises:
        PassInterruptedError: It was ended.
        Exception: Whatever failed.
    """
    with _telling(options):
        arrays: list[NDArray[Any]] = session.run(outputs, feeds, options)
    return arrays


def run_bound_interruptibly(
    session: onnxruntime.InferenceSession,
    binding: onnxruntime.IOBinding,
    options: onnxruntime.RunOptions | None,
) -> None:
    """Runs a session with its tensors bound.

    Raises:
        PassInterruptedError: It was ended.
        Exception: Whatever failed.
    """
    with _telling(options):
        session.run_with_iobinding(binding, options)


@contextlib.contextmanager
def _telling(options: onnxruntime.RunOptions | None) -> Iterator[None]:
    """Tells a pass that was ended from one that failed."""
    try:
        yield
    except Exception as error:  # onnxruntime's exceptions share no public base class
        if options is not None and options.terminate and "terminate flag" in str(error):
            raise PassInterruptedError("nobody waits for the pass any more") from error
        raise
