"""The memory of a process: its container's limit, or the machine's, and what it keeps of it."""

import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from seqserve.memory import available_memory

LIMITS = ["memory.max", "memory/memory.limit_in_bytes"]
"""Of both versions of control groups, as a container sees its own."""


def write_limit(root: Path, name: str, text: str) -> None:
    """Makes a file of the control groups."""
    file = root / "sys" / "fs" / "cgroup" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="ascii")


@pytest.mark.parametrize("name", LIMITS)
def test_limit_of_the_container_counts(tmp_path: Path, name: str) -> None:
    """Both versions of control groups are read."""
    write_limit(tmp_path, name, "1048576\n")
    assert available_memory(tmp_path) == 1_048_576


@pytest.mark.parametrize(
    ("membership", "group"), [("0::/a/b", "a/b"), ("4:memory:/a/b", "memory/a/b")]
)
def test_least_limit_of_the_groups_above_counts(
    tmp_path: Path, membership: str, group: str
) -> None:
    """A service of systemd is in a group that is in others."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"{membership}\n", encoding="ascii")
    name = "memory.max" if membership.startswith("0") else "memory.limit_in_bytes"
    write_limit(tmp_path, f"{group}/{name}", "2097152\n")
    assert available_memory(tmp_path) == 2_097_152
    write_limit(tmp_path, f"{group}/../{name}", "1048576\n")
    assert available_memory(tmp_path) == 1_048_576


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    """No file, no limit, or one beyond the machine: the machine's memory counts."""
    machine = available_memory(tmp_path)
    assert machine > 2**28
    write_limit(tmp_path, "memory.max", "max\n")
    assert available_memory(tmp_path) == machine
    write_limit(tmp_path, "memory.max", str(2**63))
    assert available_memory(tmp_path) == machine


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("text", ["", "\n", "much", "1e9"])
def test_odd_limit_is_told_and_left_out(tmp_path: Path, name: str, text: str) -> None:
    """A file that says nothing of use stops no start: the machine's memory counts."""
    machine = available_memory(tmp_path)
    write_limit(tmp_path, name, text)
    with structlog.testing.capture_logs() as logs:
        assert available_memory(tmp_path) == machine
    (line,) = logs
    assert line["event"] == "a limit of a control group cannot be read and is left out"
    assert line["file"] == str(tmp_path / "sys/fs/cgroup" / name)


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
