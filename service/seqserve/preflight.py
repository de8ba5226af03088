"""Tries a model in a process that may crash: ``python -m seqserve.preflight FOLDER [SETTINGS]``.

A graph is code: onnxruntime may be made to crash by one, or to take all memory. So a model is read,
checked, opened and run once here, with bounded time and memory, before a server does the same; its
explain graph, too, which a server opens only when somebody asks. The last line of the output is a
JSON object: ``{"model": "tiny/2", "seconds": 0.8, "peak_bytes": ...}`` or ``{"error": "..."}``; the
exit code is 0 if the model can be served and 1 if not.
"""

import contextlib
import json
import math
import os
import resource
import signal
import sys
import time
from pathlib import Path

from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError, ModelFolderError
from seqserve.logs import configure_logs
from seqserve.metrics import Metrics
from seqserve.model_opening import open_model

_SLACK_SECONDS = 5
"""The parent has ended it long before; this is for a parent that is gone."""
_NICENESS = 10
"""Others are being served meanwhile."""


def main(arguments: list[str]) -> int:
    """Tries one model; returns the exit code."""
    if len(arguments) not in (1, 2):
        print("usage: python -m seqserve.preflight FOLDER [SETTINGS as JSON]", file=sys.stderr)
        return 2
    config = ServerConfig.model_validate_json(arguments[1] if len(arguments) == 2 else "{}")
    folder = Path(arguments[0])
    _bound(folder, config)
    configure_logs(config)
    started_at = time.monotonic()
    try:
        model = open_model(folder, config, Metrics(), is_rehearsed=True)
        if model.explainer is not None:
            model.explainer.rehearse()
    except (ModelFolderError, ConfigurationError) as error:
        return _say(1, error=str(error))
    except MemoryError:
        return _say(1, error=f"{folder} needs more than {memory_limit(folder, config)} bytes")
    except Exception as error:  # whatever it is, the server would meet it, too
        return _say(1, error=f"{folder} cannot be opened: {type(error).__name__}: {error}")
    seconds = round(time.monotonic() - started_at, 3)
    return _say(0, model=model.label, seconds=seconds, peak_bytes=_peak_memory())


def memory_limit(folder: Path, config: ServerConfig) -> int:
    """Bytes that a pre-flight may write to, in memory of its own."""
    if config.preflight_bytes:
        return config.preflight_bytes
    size = sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
    return 2**30 + 4 * size


def _bound(folder: Path, config: ServerConfig) -> None:
    """Limits what this process may take, and offers it to the kernel when memory runs out."""
    signal.alarm(math.ceil(config.preflight_seconds) + _SLACK_SECONDS)
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if config.device == "cpu":  # CUDA reserves the address space of the GPU
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory_limit(folder, config)
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with contextlib.suppress(OSError):  # where /proc is read-only or not there
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _peak_memory() -> int:
    """The most bytes this process has had in memory; ``getrusage`` counts its parent's, too."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _say(code: int, **verdict: object) -> int:
    print(json.dumps(verdict), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
