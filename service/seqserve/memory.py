"""How much memory this process may use: that of its container, or of the machine."""

import os
from pathlib import Path

_LIMIT_FILES = ("memory.max", "memory/memory.limit_in_bytes")
"""Of control groups, version 2 and version 1, as a container sees its own."""


def available_memory(control_group: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes this process may use.

    Args:
        control_group: Where the limits of the container are mounted.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _LIMIT_FILES:
        path = control_group / name
        if path.is_file():
            text = path.read_text(encoding="ascii").strip()
            if text.isdecimal():  # "max" is no limit
                limits.append(int(text))
    return min(limits)
