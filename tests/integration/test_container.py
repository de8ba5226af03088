"""The image, built by its Dockerfile and run as confined as Kubernetes runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import container
from deploy_objects import kustomize, pod_of, read, settings_of
from processes import free_port
from proxy import is_serving
from seqserve.client import AsyncClient
from seqserve.manifest import MANIFEST_FILE
from serving import MakeServer

pytestmark = pytest.mark.needs("containers", "cpu group", "memory group")
MAX_IMAGE_BYTES = 400_000_000
PATIENCE_SECONDS = 60.0
"""To start, on a busy machine."""


@pytest.fixture(scope="module")
def image() -> str:
    """The server for processors."""
    return container.build("cpu")


@pytest.fixture
def models(store: Path, tmp_path: Path) -> Path:
    """A store that every user may read."""
    copy = tmp_path / "models"
    shutil.copytree(store / "tiny", copy / "tiny")
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


@contextlib.contextmanager
def started(image: str, models: Path, *flags: str) -> Iterator[tuple[str, int]]:
    """A container as `docker run` of the README starts it; its name, and its port for calls."""
    port, name = free_port(), f"seqserve-{free_port()}"
    container.run(
        *("podman", "run", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:50051"),
        *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--pids-limit", "128"),
        *("--memory", "512m", "--cpus", "1", "--volume", f"{models}:/models:ro", *flags, image),
    )
    try:
        yield name, port
    finally:
        container.run("podman", "rm", "--force", "--time", "0", name)


async def wait_until_serving(port: int) -> None:
    """By the health service, which takes the place of the kubelet's probes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await is_serving(port):
            await asyncio.sleep(0.1)


async def generate(port: int) -> str:
    """What the model makes of a text."""
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        (generation,) = await client.generate("a b c", model="tiny")
    return generation.text


def test_image_is_small_and_has_no_more_than_a_server(image: str) -> None:
    """Its size, its user, and its list of what is in it, which is what is in it."""
    described = container.inspect("image", image)
    assert described["Size"] < MAX_IMAGE_BYTES
    assert described["Config"]["User"] == "65532:65532"
    script = (
        "import importlib.metadata as m, json, pathlib, sys;"
        "bom = json.loads(pathlib.Path(sys.prefix, 'seqserve.cdx.json').read_text());"
        "print(json.dumps([sorted(d.name for d in m.distributions()), bom]))"
    )
    entry = "--entrypoint=/opt/seqserve/bin/python"
    output = container.run("podman", "run", "--rm", "--network=none", entry, image, "-c", script)
    installed, listed = json.loads(output)
    names = {one["name"] for one in listed["components"]}
    assert names | {"seqserve"} == set(installed)
    assert {"onnxruntime", "tokenizers", "grpcio", "sentencepiece", "opentelemetry-sdk"} <= names
    assert names.isdisjoint({"torch", "transformers", "onnx", "pip", "setuptools"})
    assert listed["metadata"]["component"]["name"] == "seqserve"


async def test_confined_container_serves_and_drains(
    image: str, models: Path, serving: MakeServer
) -> None:
    """Read-only, no capability, half a gigabyte, one processor; SIGTERM ends it with 0.

    Texts are those of a server without a container.
    """
    async with serving() as running:
        expected = await generate(running.ports.grpc)
    with started(image, models) as (name, port):
        await wait_until_serving(port)
        assert await generate(port) == expected
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "seqserve", "generate", "--model", "tiny", "a b c"),
            *("--target", f"127.0.0.1:{port}"),
            stdout=asyncio.subprocess.PIPE,
            cwd=container.ROOT / "service",
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        assert expected in output.decode()
        container.run("podman", "stop", "--time", "30", name)
        lines = container.logs(name).splitlines()
        assert container.inspect("container", name)["State"]["ExitCode"] == 0
    log = [json.loads(line) for line in lines if line.startswith("{")]
    (opened,) = [line for line in log if line["event"] == "model opened"]
    assert opened["threads"] == 1  # of the quota, not of the machine
    assert log[-1]["event"] == "stopped"


async def test_container_without_a_model_says_so(image: str, tmp_path: Path) -> None:
    """Exit code 2 and one line, for whoever looks why the pod does not start."""
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    with started(image, empty) as (name, _):
        assert container.run("podman", "wait", name) == "2"
        assert MANIFEST_FILE in container.logs(name)


@pytest.mark.needs("kubectl")
async def test_rendered_pod_is_played(image: str, models: Path, tmp_path: Path) -> None:
    """The Deployment and the ConfigMap of the base; what podman has not is put otherwise.

    Probes of gRPC are asked by the test, the claim is a folder, and podman takes neither the
    sleep before the end nor the count of threads from the request.
    """
    path, port = playable(image, models, tmp_path)
    async with played(path):
        await wait_until_serving(port)
        text = await generate(port)
        name = (
            "seqserve-pod-0-seqserve"
            if _exists("seqserve-pod-0-seqserve")
            else "seqserve-pod-seqserve"
        )
        described = container.inspect("container", name)
    assert text
    assert described["Config"]["User"] == "65532:65532"
    assert described["HostConfig"]["ReadonlyRootfs"] is True
    assert described["EffectiveCaps"] in (None, [])
    assert described["HostConfig"]["Memory"] == 4 * 2**30


def playable(image: str, models: Path, folder: Path) -> tuple[Path, int]:
    """The objects of the base for podman, and the port for calls."""
    objects = read(kustomize("base"))
    pod: dict[str, Any] = pod_of(objects)
    (server,) = pod["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
        del server[probe]
    (threads,) = server["env"]
    server["env"] = [{"name": threads["name"], "value": server["resources"]["requests"]["cpu"]}]
    server |= {"image": image, "imagePullPolicy": "Never"}
    port = free_port()
    server["ports"] = [{"containerPort": 50051, "hostPort": port, "hostIP": "127.0.0.1"}]
    (claimed,) = [one for one in pod["volumes"] if "persistentVolumeClaim" in one]
    del claimed["persistentVolumeClaim"]
    claimed["hostPath"] = {"path": str(models), "type": "Directory"}
    kept = [one for (kind, _), one in objects.items() if kind in ("Deployment", "ConfigMap")]
    assert settings_of(objects)["SEQSERVE_MODELS"] == "/models"
    path = folder / "pod.yaml"
    path.write_text(yaml.safe_dump_all(kept), encoding="utf-8")
    return path, port


@contextlib.asynccontextmanager
async def played(path: Path) -> AsyncIterator[None]:
    """Runs what a file describes, and ends it by SIGTERM."""
    await asyncio.to_thread(container.run, "podman", "kube", "play", str(path))
    try:
        yield
    finally:
        await asyncio.to_thread(container.run, "podman", "kube", "down", str(path))


def _exists(name: str) -> bool:
    return bool(container.run("podman", "ps", "--quiet", "--filter", f"name=^{name}$"))
