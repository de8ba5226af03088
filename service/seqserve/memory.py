"""Memory of this process: how much it may use, and what becomes of what it frees."""

import ctypes
import os
from pathlib import Path

from seqserve.group_limit import memory_limit

_KEEPING = {
    -1: 128 * 2**20,  # M_TRIM_THRESHOLD: what may lie free at the top of the heap
    -2: 32 * 2**20,  # M_TOP_PAD: what the heap grows by at once
    -3: 32 * 2**20,  # M_MMAP_THRESHOLD: what is larger is taken from the system alone
}
"""Options of glibc's ``mallopt`` by their numbers in ``malloc.h``."""


def available_memory(root: Path = Path("/")) -> int:
    """Bytes this process may use: the machine's, or the limit of its control group.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit(root)
    return machine if limit is None else min(machine, limit)


def give_back_freed_memory() -> None:
    """Has the C library give back to the system what is free; see ``malloc_trim(3)``.

    For the end of a model: what it has left behind is more than a run could use again.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc has it
        trim(0)


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed for the next run, up to 128 MiB, for this process.

    It would give freed buffers back to the system, and every run of a graph would wait for pages of
    zeros again: a sixth of an encoder pass. See ``mallopt(3)``.

    Returns:
        Whether the C library has such settings: glibc has.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    return all(set_option(option, value) == 1 for option, value in _KEEPING.items())
