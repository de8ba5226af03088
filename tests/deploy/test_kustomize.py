"""The Kubernetes objects of the base agree with each other and with the server's settings."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from seqserve.config import PREFIX, ServerConfig
from seqserve.server import MODEL_SERVICE

BASE = Path(__file__).parents[2] / "deploy" / "kustomize" / "base"
DEFAULTS = ServerConfig()


def read(name: str) -> dict[str, Any]:
    """One object of the base."""
    loaded: dict[str, Any] = yaml.safe_load((BASE / name).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture
def pod() -> dict[str, Any]:
    """The pod's specification."""
    spec: dict[str, Any] = read("deployment.yaml")["spec"]["template"]["spec"]
    return spec


def test_every_file_is_listed() -> None:
    """No object is left out of the kustomization, and none is missing."""
    listed = set(read("kustomization.yaml")["resources"])
    assert listed == {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}


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
            assert port["port"] == ports[port["targetPort"]]


def test_probes_use_the_health_port(pod: dict[str, Any]) -> None:
    """Readiness asks for a service, liveness for the process; never on the main port."""
    (container,) = pod["containers"]
    probes = {kind: container[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness")}
    expected = {"port": DEFAULTS.health_port, "service": MODEL_SERVICE}
    assert probes == {"startup": expected, "readiness": expected}
    assert container["livenessProbe"]["grpc"] == {"port": DEFAULTS.health_port}


def test_grace_covers_sleep_drain_and_closing(pod: dict[str, Any]) -> None:
    """The kubelet does not kill what is still draining."""
    (container,) = pod["containers"]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = float(variables[f"{PREFIX}DRAIN_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] >= sleep + drain + 5


def test_variables_are_settings(pod: dict[str, Any]) -> None:
    """The server would refuse to start with any other."""
    (container,) = pod["containers"]
    for entry in container["env"]:
        assert entry["name"].removeprefix(PREFIX).lower() in ServerConfig.model_fields


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


def test_a_shared_volume_has_rollouts_without_a_gap() -> None:
    """The patches name objects of the base; whoever serves goes after the next one serves."""
    replicas = yaml.safe_load((BASE.parent / "replicas" / "kustomization.yaml").read_text("utf-8"))
    assert replicas["resources"] == ["../base"]
    claim, deployment = (yaml.safe_load(entry["patch"]) for entry in replicas["patches"])
    for patch, name in ((claim, "models.yaml"), (deployment, "deployment.yaml")):
        original = read(name)
        assert patch["metadata"] == original["metadata"]
        assert (patch["apiVersion"], patch["kind"]) == (original["apiVersion"], original["kind"])
    assert claim["spec"] == {"accessModes": ["ReadWriteMany"]}
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_fill_pod_is_as_restricted_as_the_server(pod: dict[str, Any]) -> None:
    """The pod of the README writes as the user who reads, to the claim, without privileges."""
    text = (BASE.parents[1] / "README.md").read_text(encoding="utf-8")
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


def test_pod_meets_the_restricted_standard(pod: dict[str, Any]) -> None:
    """Not root, no capabilities, no token, nothing writable but /tmp."""
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    writable = [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["tmp"]
