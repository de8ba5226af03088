"""The Kubernetes objects of the base agree with each other and with the server's settings."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from seqserve.config import ServerConfig
from seqserve.config_source import PREFIX
from seqserve.server import MODEL_SERVICE

FOLDER = Path(__file__).parents[2] / "deploy" / "kustomize"
BASE = FOLDER / "base"
DEFAULTS = ServerConfig()
CLOSING_SECONDS = 10
"""After the drain, until the process has ended."""


def read(name: str) -> dict[str, Any]:
    """One object of the base."""
    loaded: dict[str, Any] = yaml.safe_load((BASE / name).read_text(encoding="utf-8"))
    return loaded


def read_settings(path: Path) -> dict[str, str]:
    """The variables that a kustomization sets."""
    generators = yaml.safe_load(path.read_text(encoding="utf-8")).get("configMapGenerator", [])
    return dict(line.split("=", 1) for one in generators for line in one["literals"])


@pytest.fixture
def pod() -> dict[str, Any]:
    """The pod's specification."""
    spec: dict[str, Any] = read("deployment.yaml")["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def settings() -> dict[str, str]:
    """The variables of the base."""
    return read_settings(BASE / "kustomization.yaml")


def test_every_file_is_listed() -> None:
    """No object is left out of a kustomization, and none is missing."""
    for path in FOLDER.rglob("kustomization.yaml"):
        found = {one.name for one in path.parent.glob("*.yaml")} - {path.name}
        listed = yaml.safe_load(path.read_text(encoding="utf-8")).get("resources", [])
        assert {name for name in listed if name.endswith(".yaml")} == found


def test_every_path_that_is_named_is_there() -> None:
    """In comments, too, from the file that names it."""
    named = [
        path.parent / name
        for path in FOLDER.parent.rglob("*.yaml")
        for name in re.findall(r"(?<![\w./])\.\./[\w./-]*\w", path.read_text(encoding="utf-8"))
    ]
    assert len(named) > 30
    assert [str(path) for path in named if not path.exists()] == []


def test_every_component_is_used() -> None:
    """By an overlay, so that it is checked with everything else."""
    used = {
        (path.parent / name).resolve()
        for path in FOLDER.rglob("kustomization.yaml")
        for name in yaml.safe_load(path.read_text(encoding="utf-8")).get("components", [])
    }
    assert used == {path.resolve() for path in (FOLDER / "components").iterdir()}


def test_ports_are_the_servers(pod: dict[str, Any]) -> None:
    """Container ports are the defaults that the server listens on; services name them."""
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {
        "grpc": DEFAULTS.port,
        "health": DEFAULTS.health_port,
        "metrics": DEFAULTS.metrics_port,
    }
    for name in ("service.yaml", "service-headless.yaml"):
        for port in read(name)["spec"]["ports"]:
            assert port["targetPort"] == port["name"]
            assert port["port"] == ports[port["name"]]
    (rule,) = read("networkpolicy.yaml")["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == set(ports)


def test_probes_ask_the_health_port(pod: dict[str, Any]) -> None:
    """Liveness asks for the process, startup and readiness for the models."""
    (container,) = pod["containers"]
    probes = {kind: container[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness")}
    expected = {"port": DEFAULTS.health_port, "service": MODEL_SERVICE}
    assert probes == {"startup": expected, "readiness": expected}
    assert container["livenessProbe"]["grpc"] == {"port": DEFAULTS.health_port}


def test_grace_is_sleep_drain_and_closing(pod: dict[str, Any], settings: dict[str, str]) -> None:
    """The kubelet kills nothing that still drains, and the drain is as long as any call may be."""
    (container,) = pod["containers"]
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = int(settings[f"{PREFIX}DRAIN_SECONDS"])
    assert drain >= int(settings[f"{PREFIX}MAX_REQUEST_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] == sleep + drain + CLOSING_SECONDS


def test_variables_are_settings(pod: dict[str, Any]) -> None:
    """The server would refuse to start with any other."""
    (container,) = pod["containers"]
    names = {entry["name"] for entry in container["env"]}
    for path in FOLDER.rglob("kustomization.yaml"):
        names |= set(read_settings(path))
    assert {name.removeprefix(PREFIX).lower() for name in names} <= set(ServerConfig.model_fields)


def test_threads_are_the_requested_cpus(pod: dict[str, Any]) -> None:
    """Without a CPU limit, the server would start a thread for each CPU of the node."""
    (container,) = pod["containers"]
    (threads,) = [entry for entry in container["env"] if entry["name"] == f"{PREFIX}THREADS"]
    assert threads["valueFrom"] == {"resourceFieldRef": {"resource": "requests.cpu"}}
    assert "cpu" in container["resources"]["requests"]
    assert "cpu" not in container["resources"]["limits"]


def test_a_volume_of_one_node_never_waits_for_the_old_pod() -> None:
    """The claim is of one node: one replica, and the old pod is gone before the new one starts."""
    assert read("models.yaml")["spec"]["accessModes"] == ["ReadWriteOnce"]
    spec = read("deployment.yaml")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_fill_pod_is_as_restricted_as_the_server(pod: dict[str, Any]) -> None:
    """The pod of the README writes as the user who reads, to the claim, without privileges."""
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"<<'END'\n(.+?)^END$", text, re.MULTILINE | re.DOTALL)
    fill = yaml.safe_load(found)["spec"]
    (container,) = fill["containers"]
    for key in ("runAsNonRoot", "runAsUser", "fsGroup", "seccompProfile"):
        assert fill["securityContext"][key] == pod["securityContext"][key]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    (volume,) = fill["volumes"]
    claim = read("models.yaml")["metadata"]["name"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim}
    assert "kubectl wait --for=condition=Ready" in text


def test_services_do_not_leak_into_settings(pod: dict[str, Any]) -> None:
    """Kubernetes' own SEQSERVE_PORT would be read as a setting."""
    assert pod["enableServiceLinks"] is False
