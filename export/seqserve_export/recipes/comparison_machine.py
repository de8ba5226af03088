"""The machine and the packages that figures are of."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "onnxruntime", "onnx", "numpy", "tokenizers", "grpcio")


def describe_machine() -> dict[str, Any]:
    """Processor, CPUs this process may use, how busy they are, system, Python and packages."""
    return {
        "processor": _processor_name(Path("/proc/cpuinfo")),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
    }


def _processor_name(path: Path) -> str:
    """The processor as the system names it."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
