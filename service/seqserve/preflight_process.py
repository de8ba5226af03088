"""The processes in which models are tried before this one opens them.

They are new programs (``exec``) rather than copies of this one: gRPC and onnxruntime do not survive
a fork.
"""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence as Items
from pathlib import Path

import structlog

from seqserve.config import ServerConfig
from seqserve.errors import ModelFolderError
from seqserve.session import available_cpus

_log = structlog.get_logger(__name__)

_MODULE = "seqserve.preflight"
_SETTINGS = (
    "device",
    "max_batch_size",
    "max_num_beams",
    "cache_bytes",
    "preflight_seconds",
    "preflight_bytes",
)
"""What decides whether a model can be opened; callers' secrets are none of a model's business."""
_MAX_OUTPUT_BYTES = 65_536
_MAX_AT_ONCE = 4
"""Each takes some 110 MB beside its model."""


class Preflights:
    """The pre-flights that run, which can be ended together. Any thread."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    def check(self, folder: Path) -> None:
        """Tries a model; waits for it.

        Raises:
            ModelFolderError: It cannot be served, has crashed its process, or took too long.
        """
        with self._lock:
            if self._is_closed:
                raise ModelFolderError(f"{folder} was not tried: the server is being stopped")
            process = _start(folder, self._config)
            self._running.add(process)
        try:
            verdict = _wait(process, folder, self._config.preflight_seconds)
        finally:
            with self._lock:
                self._running.discard(process)
        _log.info("model passed pre-flight", **verdict)

    def check_all(self, folders: Items[Path]) -> None:
        """Tries models, several at once; ends them if it is interrupted.

        Raises:
            ModelFolderError: Some cannot be served; the message has a line of each.
        """
        problems = []
        num_threads = min(available_cpus(), _MAX_AT_ONCE)
        with concurrent.futures.ThreadPoolExecutor(num_threads) as executor:
            try:
                futures = [executor.submit(self.check, folder) for folder in folders]
                for future in futures:
                    try:
                        future.result()
                    except ModelFolderError as error:
                        problems.append(str(error))
            finally:
                self.close()
        if problems:
            raise ModelFolderError("; ".join(problems))

    def close(self) -> None:
        """Ends what runs, and refuses to try more."""
        with self._lock:
            self._is_closed = True
            for process in self._running:
                process.kill()


def _start(folder: Path, config: ServerConfig) -> subprocess.Popen[bytes]:
    settings = config.model_dump(mode="json", include=set(_SETTINGS))
    # One is enough to see whether it runs, and others are computing.
    settings |= {"threads": 1, "lanes": 1}
    environment = {name: value for name, value in os.environ.items() if "SEQSERVE" not in name}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", _MODULE, str(folder), json.dumps(settings)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # What a library says when it gives up is the best clue there is.
        stderr=subprocess.STDOUT,
        env=environment,
        # Ctrl-C is for the server, which ends it.
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> dict[str, object]:
    """The verdict of a process that has ended, or is ended after so many seconds."""
    overdue = threading.Event()

    def end() -> None:
        overdue.set()
        process.kill()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    assert process.stdout is not None
    with process.stdout as stdout:
        output = stdout.read(_MAX_OUTPUT_BYTES)
    # Whoever writes more than that has nothing to say.
    if len(output) == _MAX_OUTPUT_BYTES:
        process.kill()
    code = process.wait()
    timer.cancel()
    timer.join()
    if overdue.is_set():
        raise ModelFolderError(
            f"{folder} took longer than {seconds:g} seconds in pre-flight; raise "
            "--preflight-seconds if it is that large"
        )
    return _read(folder, code, output.decode("utf-8", "replace"))


def _read(folder: Path, code: int, output: str) -> dict[str, object]:
    """What the output of a process that ended with a code says of a model."""
    lines = output.strip().splitlines() or [""]
    if code in (0, 1):
        try:
            verdict = json.loads(lines[-1])
        except ValueError:
            verdict = {"error": f"{folder} cannot be tried: {lines[-1]}"}
        if "error" not in verdict:
            return dict(verdict)
        raise ModelFolderError(verdict["error"])
    how = f"exit code {code}" if code > 0 else f"signal {-code} ({signal.Signals(-code).name})"
    said = f", saying {lines[0]!r}" if lines[0] else ""
    raise ModelFolderError(
        f"{folder} ended its pre-flight process with {how}{said}: opening it would crash the "
        "server; export the model again, or take it out of the store (or raise --preflight-bytes, "
        "if memory is what it lacked)"
    )
