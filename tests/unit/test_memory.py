"""The memory of a process: its container's limit, or the machine's memory."""

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
