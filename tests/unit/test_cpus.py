"""How many threads to compute with: what this process may use, not what the machine has."""

import os
from pathlib import Path

import pytest

from seqserve import session
from seqserve.session import available_cpus


class FakeGroup:
    """The files of a control group, in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, path: str) -> Path:
        """Stands for ``Path`` of absolute paths."""
        return self._root / path.lstrip("/")

    def write(self, path: str, text: str) -> None:
        """Makes a file."""
        file = self(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGroup:
    """A process that may use 8 CPUs, in a control group without a file."""
    fake = FakeGroup(tmp_path)
    monkeypatch.setattr(session, "Path", fake)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return fake


def test_affinity_counts_without_a_quota(group: FakeGroup) -> None:
    """No file, or one that says that there is no limit."""
    assert available_cpus() == 8
    group.write("/sys/fs/cgroup/cpu.max", "max 100000\n")
    assert available_cpus() == 8


@pytest.mark.parametrize(
    ("quota", "expected"), [(300_000, 3), (350_000, 3), (50_000, 1), (800_000, 8), (1_600_000, 8)]
)
def test_quota_counts_if_it_is_smaller(group: FakeGroup, quota: int, expected: int) -> None:
    """Of a group of version 2; parts of a CPU are no thread, but there is always one."""
    group.write("/sys/fs/cgroup/cpu.max", f"{quota} 100000\n")
    assert available_cpus() == expected


@pytest.mark.parametrize(("quota", "expected"), [(-1, 8), (200_000, 2)])
def test_older_groups_have_two_files(group: FakeGroup, quota: int, expected: int) -> None:
    """Of a group of version 1; -1 is no quota."""
    group.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", f"{quota}\n")
    group.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert available_cpus() == expected
