"""The memory of a process: its container's limit, or the machine's, and what it keeps of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from seqserve.memory import available_memory


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_limit_of_the_container_counts(tmp_path: Path, name: str) -> None:
    """Both versions of control groups are read."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("1048576\n")
    assert available_memory(tmp_path) == 1_048_576


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    """No file, no limit, or one beyond the machine: the machine's memory counts."""
    machine = available_memory(tmp_path)
    assert machine > 2**28
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) == machine
    (tmp_path / "memory.max").write_text(str(2**63))
    assert available_memory(tmp_path) == machine


_COUNT_FAULTS = """
import resource, sys
import numpy as np
from seqserve.memory import keep_freed_memory

if sys.argv[1] == "keep":
    print(keep_freed_memory())
def touch():
    for _ in range(4):
        [np.ones(2**21, np.float32) for _ in range(8)]  # 8 MiB each, freed together
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_used_again() -> None:
    """Buffers of a run are those of the run before, not pages asked for anew."""

    def run(word: str) -> list[str]:
        command = [sys.executable, "-c", _COUNT_FAULTS, word]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    (faults,) = run("free")
    kept, kept_faults = run("keep")
    assert kept == "True"
    assert int(kept_faults) < int(faults) / 10
