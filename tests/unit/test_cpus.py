"""How many threads to compute with: what this process may use, not what the machine has."""

import errno
import os
from pathlib import Path

import pytest
import structlog

from seqserve.session import available_cpus


class FakeMachine:
    """The files that tell of control groups, in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        """Makes a file."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="latin-1")

    def available_cpus(self) -> int:
        """What a process there may use."""
        return available_cpus(self.root)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """A process that may use 8 CPUs, in a control group without a file."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return FakeMachine(tmp_path)


def test_affinity_counts_without_a_quota(machine: FakeMachine) -> None:
    """No file, or one that says that there is no limit."""
    assert machine.available_cpus() == 8
    machine.write("/sys/fs/cgroup/cpu.max", "max 100000\n")
    assert machine.available_cpus() == 8


@pytest.mark.parametrize(
    ("quota", "expected"), [(300_000, 3), (350_000, 3), (50_000, 1), (800_000, 8), (1_600_000, 8)]
)
def test_quota_counts_if_it_is_smaller(machine: FakeMachine, quota: int, expected: int) -> None:
    """Of a group of version 2; parts of a CPU are no thread, but there is always one."""
    machine.write("/sys/fs/cgroup/cpu.max", f"{quota} 100000\n")
    assert machine.available_cpus() == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "50000",
        "many 100000",
        "-5 100000",
        "50000 0",
        "50000 often",
        "50000 100000 1",
        "\xff",
    ],
)
def test_odd_quota_is_told_and_left_out(machine: FakeMachine, text: str) -> None:
    """A file that says nothing of use stops no start: affinity counts, or a quota further up."""
    machine.write("/proc/self/cgroup", "0::/a\n")
    machine.write("/sys/fs/cgroup/a/cpu.max", text)
    with structlog.testing.capture_logs() as logs:
        assert machine.available_cpus() == 8
        assert machine.available_cpus() == 8
    (line,) = logs
    assert line["event"] == "a limit of a control group cannot be read and is left out"
    assert line["file"] == str(machine.root / "sys/fs/cgroup/a/cpu.max")
    machine.write("/sys/fs/cgroup/cpu.max", "300000 100000\n")
    assert machine.available_cpus() == 3


@pytest.mark.parametrize("text", ["", "nonsense\n0::/a", "1:2\n0::/a", "\xff"])
def test_odd_memberships_stop_no_start(machine: FakeMachine, text: str) -> None:
    """What is no list of groups is told; the group that is mounted counts anyway."""
    machine.write("/proc/self/cgroup", text)
    machine.write("/sys/fs/cgroup/cpu.max", "300000 100000\n")
    with structlog.testing.capture_logs() as logs:
        assert machine.available_cpus() == 3
    assert len(logs) == (text != "")


def test_unreadable_quota_is_told_and_left_out(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some sandboxes show files that nobody may read."""

    def refuse(path: Path, **_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    machine.write("/sys/fs/cgroup/cpu.max", "300000 100000\n")
    monkeypatch.setattr(Path, "read_text", refuse)
    with structlog.testing.capture_logs() as logs:
        assert machine.available_cpus() == 8
    assert [line["reason"] for line in logs] == [
        f"[Errno 13] Permission denied: '{machine.root / 'sys/fs/cgroup/cpu.max'}'"
    ]


@pytest.mark.parametrize(("quota", "expected"), [(-1, 8), (200_000, 2)])
def test_older_groups_have_two_files(machine: FakeMachine, quota: int, expected: int) -> None:
    """Of a group of version 1; -1 is no quota."""
    machine.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", f"{quota}\n")
    machine.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert machine.available_cpus() == expected


@pytest.mark.parametrize(("above", "expected"), [(200_000, 2), (-1, 4), (600_000, 4)])
def test_group_of_the_process_and_those_above_count(
    machine: FakeMachine, above: int, expected: int
) -> None:
    """A service of systemd, or a shell, is in a group that is in others: the least quota holds."""
    machine.write("/proc/self/cgroup", "4:memory:/other\n3:cpu,cpuacct:/a/b\n0::/\n")
    for group, quota in (("a/b", 400_000), ("a", above)):
        machine.write(f"/sys/fs/cgroup/cpu/{group}/cpu.cfs_quota_us", f"{quota}\n")
        machine.write(f"/sys/fs/cgroup/cpu/{group}/cpu.cfs_period_us", "100000\n")
    assert machine.available_cpus() == expected


def test_path_of_the_machine_means_nothing_in_a_container(machine: FakeMachine) -> None:
    """Its own group is where groups are mounted, whatever it is called outside."""
    machine.write("/proc/self/cgroup", "0::/../../machine/container\n")
    machine.write("/sys/fs/cgroup/cpu.max", "300000 100000\n")
    assert machine.available_cpus() == 3
    machine.write("/proc/self/cgroup", "0::/machine/container\n")
    assert machine.available_cpus() == 3
