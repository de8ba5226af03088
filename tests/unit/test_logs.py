"""Logs say what happened, and nothing of what callers sent."""

import io
import json
import sys

import pytest
import structlog

from seqserve.config import ServerConfig
from seqserve.logs import configure_logs


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
