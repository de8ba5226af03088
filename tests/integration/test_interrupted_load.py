"""SIGTERM while models are opened, and a second one: the process ends soon, and is no failure."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from processes import start_process
from stuck_server import OPENING

PATIENCE_SECONDS = 60.0
STUCK_SERVER = Path(__file__).parents[1] / "stuck_server.py"
NUM_MOMENTS = 4


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[float, str]:
    """Sends a signal twice; returns how long the process took to end, and what it logged."""
    began_at = time.monotonic()
    process.send_signal(number)
    process.send_signal(number)
    try:
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, output) == (0, ""), errors
    assert f'"signal": "{number.name}", "event": "stopped while loading models"' in errors
    assert "Traceback" not in errors
    return time.monotonic() - began_at, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_library_that_hears_of_no_signal_is_not_waited_for(
    store: Path, number: signal.Signals
) -> None:
    """Opening a graph would take minutes; the process ends within three seconds, with 0."""
    process = start_process(store, "--no-preflight", program=(str(STUCK_SERVER),))
    assert process.stderr is not None
    assert process.stderr.readline() == f"{OPENING}\n"
    seconds, errors = end(process, number)
    assert seconds < 3.5
    assert errors.count("\n") == 1


@pytest.mark.parametrize("moment", range(NUM_MOMENTS))
def test_models_are_left_wherever_the_signals_come(
    store: Path, heads: Path, tmp_path: Path, moment: int
) -> None:
    """Behind each of several models, of which the last would never be open."""
    copy = tmp_path / "store"
    for folder in (store, heads):
        shutil.copytree(folder, copy, dirs_exist_ok=True)
    (copy / "zebra" / "1").mkdir(parents=True)
    os.mkfifo(copy / "zebra" / "1" / "seqserve.json")  # whoever opens it waits for a writer
    process = start_process(copy, "--no-preflight", "--threads", "1")
    assert process.stderr is not None
    for _ in range(moment + 1):
        assert '"event": "model opened"' in process.stderr.readline()
    seconds, errors = end(process, signal.SIGTERM)
    assert seconds < 3.5
    assert '"model": "zebra/1"' not in errors
