"""Logs say what happened, and nothing of what callers sent."""

import contextvars
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from seqserve.call_record import CallRecord, enter_call
from seqserve.config import ServerConfig
from seqserve.logs import configure_logs


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Leaves the handlers of the process as they were."""
    before = logging.getLogger().handlers
    yield
    logging.getLogger().handlers = before


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_tracebacks_hold_no_local_variables(
    log_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is logged with its lines, without the values of its variables."""
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    configure_logs(ServerConfig.model_validate({"models": "models", "log_format": log_format}))
    try:
        text = "what a caller " + "sent"
        try:
            raise RuntimeError(f"fault {len(text)}")
        except RuntimeError:
            structlog.get_logger().exception("step failed")
    finally:
        structlog.reset_defaults()
    logged = output.getvalue()
    assert "step failed" in logged
    assert "RuntimeError: fault 18" in logged
    assert "what a caller sent" not in logged
    if log_format == "json":
        assert json.loads(logged)["event"] == "step failed"


def test_lines_have_the_request_id_and_libraries_our_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is written while a call is answered names it, whoever writes it."""
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    configure_logs(ServerConfig.model_validate({"models": "models", "log_format": "json"}))

    def answer() -> None:
        enter_call(CallRecord("id-1", 0.0))
        structlog.get_logger().info("ours")
        logging.getLogger("grpc").warning("theirs: %d", 7)
        logging.getLogger("grpc").info("too much")

    try:
        contextvars.copy_context().run(answer)
    finally:
        structlog.reset_defaults()
    ours, theirs = map(json.loads, output.getvalue().splitlines())
    assert (ours["event"], ours["request_id"]) == ("ours", "id-1")
    assert (theirs["event"], theirs["request_id"]) == ("theirs: 7", "id-1")
    assert (theirs["logger"], theirs["level"]) == ("grpc", "warning")


def test_callers_that_have_gone_are_no_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """GRPC logs each as an error with a traceback; nobody can do anything about it."""

    class ExecuteBatchError(Exception):
        """As gRPC calls it."""

    structlog.reset_defaults()  # which let everything through
    monkeypatch.setattr(structlog, "configure", lambda **settings: None)  # of the whole process
    configure_logs(ServerConfig.model_validate({"models": "models"}))
    logger = logging.getLogger("grpc._cython.cygrpc")
    with structlog.testing.capture_logs() as logs:
        for kind in (ExecuteBatchError, ValueError):
            try:
                raise kind("raised in core")
            except Exception:
                logger.exception("raised by a servicer method")
    assert [entry["log_level"] for entry in logs] == ["debug", "error"]


class GoneStream(io.StringIO):
    """A pipe whose reader has ended."""

    def write(self, text: str) -> int:
        """Fails."""
        raise BrokenPipeError(32, "Broken pipe")


def test_log_that_nobody_reads_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is lost, and whoever wrote it goes on."""
    closed = io.StringIO()
    closed.close()
    try:
        for stream in (GoneStream(), closed):
            monkeypatch.setattr(sys, "stderr", stream)
            configure_logs(ServerConfig.model_validate({"models": "models", "log_format": "json"}))
            structlog.get_logger().error("step failed")
            logging.getLogger("grpc").error("lost")
    finally:
        structlog.reset_defaults()


_UNREAD = """
import sys
import structlog
from seqserve.config import ServerConfig
from seqserve.logs import configure_logs

configure_logs(ServerConfig.model_validate({"models": "models", "log_format": "json"}))
sys.stdin.readline()
structlog.get_logger().error("nobody reads this")
sys.stderr.write("nor this, which waits for its end of line")
"""


def test_what_is_left_for_nobody_changes_no_exit_code() -> None:
    """The interpreter itself may write at its end, and flushes what is left."""
    process = subprocess.Popen(
        [sys.executable, "-c", _UNREAD],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stderr.close()
    process.stdin.close()
    assert process.wait(timeout=60) == 0
