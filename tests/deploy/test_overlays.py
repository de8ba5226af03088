"""The overlays, as kubectl builds them: what each of them is for, and what none may lose."""

import re
from pathlib import Path
from typing import Any

import pytest

from deploy_files import RULE, prometheus_rule
from deploy_objects import KUSTOMIZATIONS, Objects, kustomize, plain, pod_of, read, settings_of
from monitoring_queries import read_rules
from seqserve.config_source import PREFIX, read_config

PROTOS = Path(__file__).parents[2] / "proto"
CONFINEMENT = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
pytestmark = pytest.mark.needs("kubectl")


def build(name: str) -> Objects:
    """The objects of one kustomization."""
    return plain(read(kustomize(name)))


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_pod_meets_the_restricted_standard(name: str) -> None:
    """Not root, no capabilities, no token; the server writes nothing but /tmp."""
    pod = pod_of(build(name))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"] + pod.get("initContainers", []):
        assert container["securityContext"] == CONFINEMENT
        assert "memory" in container["resources"]["limits"]
    (server,) = pod["containers"]
    assert [one["name"] for one in server["volumeMounts"] if not one.get("readOnly")] == ["tmp"]
    volumes = {one["name"] for one in pod["volumes"]}
    mounted = {
        one["name"]
        for container in pod["containers"] + pod.get("initContainers", [])
        for one in container["volumeMounts"]
    }
    assert mounted == volumes


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_server_takes_all_settings(name: str) -> None:
    """Together, as the environment of the container."""
    objects = build(name)
    (container,) = pod_of(objects)["containers"]
    (source,) = container["envFrom"]
    assert source == {"configMapRef": {"name": "seqserve-settings"}}
    config = read_config({}, environment=settings_of(objects))
    assert str(config.models) in [one["mountPath"] for one in container["volumeMounts"]]
    assert config.host == "0.0.0.0"


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_selectors_find_the_pods(name: str) -> None:
    """Of services, budget, network policy, spread and monitor."""
    objects = build(name)
    labels = objects["Deployment", "seqserve"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        one["spec"].get("selector", one["spec"].get("podSelector"))
        for (kind, _), one in objects.items()
        if kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "Deployment")
    ]
    selectors += [one["labelSelector"] for one in pod_of(objects)["topologySpreadConstraints"]]
    assert len(selectors) >= 7
    for selector in selectors:
        assert selector.get("matchLabels", selector) == labels


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_several_replicas_have_a_store_that_several_nodes_can_have(name: str) -> None:
    """And only they are replaced one after the other; who is scaled has no number of its own."""
    objects = build(name)
    spec = objects["Deployment", "seqserve"]["spec"]
    scaled = [one for one in objects if one[0] in ("HorizontalPodAutoscaler", "ScaledObject")]
    assert ("replicas" in spec) == (not scaled)
    claims = [one for (kind, _), one in objects.items() if kind == "PersistentVolumeClaim"]
    is_shared = all(one["spec"]["accessModes"] == ["ReadWriteMany"] for one in claims)
    (store,) = [one for one in pod_of(objects)["volumes"] if one["name"] == "models"]
    assert len(claims) == ("persistentVolumeClaim" in store)
    if is_shared:
        update = {"maxUnavailable": 0, "maxSurge": 1}
        assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": update}
    else:
        assert spec["strategy"] == {"type": "Recreate"}
        assert not scaled
        assert spec["replicas"] == 1


def test_both_autoscalers_move_alike() -> None:
    """They differ in what they look at alone."""
    by_cpu = build("cpu")["HorizontalPodAutoscaler", "seqserve"]["spec"]
    by_queue = build("platform")["ScaledObject", "seqserve"]["spec"]
    advanced = by_queue["advanced"]["horizontalPodAutoscalerConfig"]
    assert advanced["behavior"] == by_cpu["behavior"]
    assert by_queue["minReplicaCount"] == by_cpu["minReplicas"]
    assert by_queue["maxReplicaCount"] == by_cpu["maxReplicas"]


def test_work_is_asked_for_by_the_names_of_the_metrics() -> None:
    """KEDA's query names what the server exports."""
    trigger, _ = build("platform")["ScaledObject", "seqserve"]["spec"]["triggers"]
    names = re.findall(r"seqserve_\w+", trigger["metadata"]["query"])
    text = (PROTOS.parent / "METRICS.md").read_text(encoding="utf-8")
    assert len(names) == 2
    assert all(f"| `{name}` |" in text for name in names)


def test_mutual_tls_is_that_of_the_secret() -> None:
    """Files of the mounted Secret; no service says that calls are in the clear."""
    objects = build("mtls")
    config = read_config({}, environment=settings_of(objects))
    pod = pod_of(objects)
    mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    files = [config.tls_certificate, config.tls_key, config.tls_client_ca]
    assert [str(file) for file in files] == [
        f"{mounts['tls']}/{name}" for name in ("tls.crt", "tls.key", "ca.crt")
    ]
    ports: list[dict[str, Any]] = [
        port
        for (kind, _), one in objects.items()
        if kind == "Service"
        for port in one["spec"]["ports"]
    ]
    assert not any("appProtocol" in port for port in ports)


def test_gpu_is_one_and_the_device_is_cuda() -> None:
    """In limits alone, with the image that has onnxruntime for it."""
    objects = build("gpu")
    (container,) = pod_of(objects)["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["image"].endswith("-gpu")
    assert settings_of(objects)[f"{PREFIX}DEVICE"] == "cuda"


def test_route_has_every_service_but_reflection() -> None:
    """Whatever the protos define, and health."""
    (rule,) = build("platform")["GRPCRoute", "seqserve"]["spec"]["rules"]
    routed = {match["method"]["service"] for match in rule["matches"]}
    defined = set()
    for path in PROTOS.rglob("*.proto"):
        text = path.read_text(encoding="utf-8")
        (package,) = re.findall(r"^package (.+);", text, re.MULTILINE)
        defined |= {f"{package}.{one}" for one in re.findall(r"^service (\w+)", text, re.MULTILINE)}
    assert defined | {"grpc.health.v1.Health"} <= routed
    assert not any("reflection" in name for name in routed)
    assert len(rule["matches"]) <= 8  # of the Gateway API


def test_rules_are_those_of_the_file() -> None:
    """`make deploy-files` writes them."""
    assert RULE.read_text(encoding="utf-8") == prometheus_rule()
    rule = build("platform")["PrometheusRule", "seqserve"]
    rules = [one for group in rule["spec"]["groups"] for one in group["rules"]]
    assert [one.get("alert", one.get("record")) for one in rules] == [
        one.get("alert", one.get("record")) for one in read_rules()
    ]
    monitor = build("platform")["PodMonitor", "seqserve"]["spec"]
    assert monitor["jobLabel"] == "app.kubernetes.io/name"
