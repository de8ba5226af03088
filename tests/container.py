"""The image of ``deploy/Dockerfile``, built and run without a registry.

A system of Debian's packages stands for the image that the Dockerfile names. Layers are kept
between runs, below the folder of programs, apart from the images of whoever runs the tests.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from requirement import PROGRAMS

ROOT = Path(__file__).parents[1]
BASE_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
_STORAGE = PROGRAMS / "containers"
_PIP_FILES = ("/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")
"""Where the machine's pip may be told what it downloads from, which goes for builds, too."""
# runc, since crun refuses hybrid control groups; limits that need no capability.
_CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
events_logger = "file"
cgroup_manager = "cgroupfs"
"""


def build(target: str) -> str:
    """Builds a target of the Dockerfile; the name of the image."""
    _STORAGE.mkdir(exist_ok=True)
    (_STORAGE / "containers.conf").write_text(_CONFIGURATION)
    (_STORAGE / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\n'
        f'graphroot = "{_STORAGE / "images"}"\nrunroot = "{_STORAGE / "run"}"\n'
    )
    if not run("buildah", "images", "--quiet", "--filter", f"reference={BASE_IMAGE}"):
        context = _STORAGE / "base"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
        (context / "base.tar").unlink(missing_ok=True)
        os.link(PROGRAMS / "base.tar", context / "base.tar")
        run("buildah", "bud", "--quiet", "--tag", BASE_IMAGE, str(context))
    image = f"localhost/seqserve-{target}:test"
    run(
        *("buildah", "bud", "--quiet", "--layers", "--isolation", "chroot", "--pull-never"),
        *_mounts(),
        *("--file", str(ROOT / "deploy" / "Dockerfile"), "--target", target),
        *("--ignorefile", str(ROOT / "deploy" / "Dockerfile.dockerignore")),
        *("--tag", image, str(ROOT)),
    )
    return image


def run(program: str, *arguments: str) -> str:
    """Runs buildah or podman; its output."""
    path = shutil.which(program)
    assert path is not None
    done = subprocess.run([path, *arguments], capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, shlex.join(arguments) + "\n" + done.stderr
    return done.stdout.strip()


def logs(name: str) -> str:
    """What a container has written, of either kind."""
    path = shutil.which("podman")
    assert path is not None
    command = [path, "logs", name]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()
    )
    return done.stdout


def inspect(kind: str, name: str) -> Any:
    """What podman knows of an image or a container."""
    (found,) = json.loads(run("podman", kind, "inspect", name))
    return found


def _environment() -> dict[str, str]:
    return os.environ | {
        "CONTAINERS_CONF": str(_STORAGE / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(_STORAGE / "storage.conf"),
    }


def _mounts() -> list[str]:
    """Certificates and settings of the machine that pip needs in a build."""
    files = ["/etc/ssl/certs/ca-certificates.crt", *_PIP_FILES]
    found = [
        (path, "/etc/pip.conf" if path.name == "pip.conf" else str(path))
        for path in (Path(file).expanduser() for file in files)
        if path.is_file()
    ]
    # Of several settings of pip the first stands for all.
    places = {place: path for path, place in reversed(found)}
    return [f"--volume={path}:{place}:ro" for place, path in places.items()]
