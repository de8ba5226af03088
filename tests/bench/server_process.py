"""The two servers as processes: ours as its users start it, and the peer's."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import psutil

from bench.json_process import ProcessError
from bench.opus_checkpoint import OpusModel
from bench.request import generate
from bench.workload import Sentence, check_targets, make_equal_sentences

_STOP_SECONDS = 45.0
_MAX_REQUEST_SECONDS = "600"
"""Hundreds of sentences with four beams are one request; the default deadline is a minute."""


class ServerProcess(NamedTuple):
    """A server that has answered its first call."""

    target: str
    process: subprocess.Popen[str]
    load_seconds: float
    """From the start of the process to its first answer."""

    def memory(self) -> dict[str, int]:
        """Resident bytes, and those of them that are no mapped files."""
        memory = psutil.Process(self.process.pid).memory_info()
        return {"resident_bytes": memory.rss, "private_bytes": memory.rss - memory.shared}


@contextlib.contextmanager
def running_seqserve(model: OpusModel, settings: Mapping[str, str]) -> Iterator[ServerProcess]:
    """Runs ``seqserve serve`` with settings, by their names."""
    flags = {
        "max_request_seconds": _MAX_REQUEST_SECONDS,
        "log_level": "warning",
        **dict.fromkeys(("port", "health_port", "metrics_port"), "0"),
        **settings,
        "models": str(model.store),
    }
    command = [sys.executable, "-m", "seqserve", "serve"]
    for name, value in flags.items():
        command += [f"--{name.replace('_', '-')}", value]
    with _running("seqserve", command) as server:
        yield server


@contextlib.contextmanager
def running_peer(
    model: OpusModel, inter_threads: int, intra_threads: int
) -> Iterator[ServerProcess]:
    """Runs the peer's server."""
    command = [sys.executable, "-m", "bench.peer_server", str(model.peer)]
    with _running("peer", [*command, str(inter_threads), str(intra_threads)]) as server:
        yield server


@contextlib.contextmanager
def _running(side: str, command: list[str]) -> Iterator[ServerProcess]:
    """Runs a server until the context ends.

    Raises:
        ProcessError: It does not start, or does not stop cleanly.
    """
    started_at = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        match = re.search(r"grpc=(\S+)", line)
        if match is None:
            raise ProcessError(f"the server of {side} did not start; it said: {line.strip()}")
        first: list[Sentence] = make_equal_sentences(1, 8, seed=0)
        check_targets(side, first, generate(match[1], first))
        yield ServerProcess(match[1], process, time.perf_counter() - started_at)
    finally:
        process.terminate()
        try:
            code = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        process.stdout.close()
    if code:
        raise ProcessError(f"the server of {side} stopped with exit code {code}")
