"""Structured logs on stderr: readable on a terminal, JSON lines elsewhere."""

import contextlib
import io
import logging
import os
import sys
from typing import TextIO, cast

import structlog

from seqserve.config import ServerConfig

_log = structlog.get_logger(__name__)
_GONE = "ExecuteBatchError"
"""What gRPC, which has no public name for it, logs as an error where a caller has gone."""


def configure_logs(config: ServerConfig) -> None:
    """Sets level and format for the whole process."""
    is_console = config.log_format == "console" or (
        config.log_format == "auto" and sys.stderr.isatty()
    )
    renderer: structlog.typing.Processor = (
        # The default formatter would print local variables, and with them what callers sent.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if is_console
        else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        # The request id, on every line that is written while a call is answered.
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not is_console:
        # The console renderer draws exceptions itself.
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[config.log_level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", _Lines(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    logging.getLogger().handlers = [_Forwarder(logging.WARNING)]


class _Lines(io.TextIOBase):
    """A stream that loses what cannot be written: its reader may be gone, or its disk full.

    The calls that the lines are about go on.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes as much as there is somebody to read."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            try:
                self._stream.write(text)
            except BrokenPipeError:
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Has what was written read."""
        with contextlib.suppress(OSError, ValueError):
            try:
                self._stream.flush()
            except BrokenPipeError:
                self._give_up()

    def _give_up(self) -> None:
        """Nobody will ever read: what else is written there is lost without a fault, too.

        The interpreter itself may write at its end, and would turn the exit code into 120.
        """
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


class _Forwarder(logging.Handler):
    """Writes what libraries log (gRPC, asyncio, OpenTelemetry) in the format of our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        level, kind = record.levelno, (record.exc_info or (None,))[0]
        if kind is not None and kind.__name__ == _GONE:
            level = logging.DEBUG
        _log.log(level, record.getMessage(), logger=record.name, exc_info=record.exc_info)
