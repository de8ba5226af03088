"""The machine and the packages that figures are of, as result files name them."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import psutil


def describe_machine() -> dict[str, Any]:
    """Processor, CPUs this process may use, memory, system and Python."""
    return {
        "processor": processor_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def installed_versions(*packages: str) -> dict[str, str]:
    """The version of each package."""
    return {name: importlib.metadata.version(name) for name in packages}


def processor_name() -> str:
    """The processor as the system names it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
