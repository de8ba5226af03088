"""The runtime for KServe: its container is valid, and serves a store as KServe mounts one."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_messages import request, stub, texts
from seqserve.config import ServerConfig
from seqserve.config_source import PREFIX, read_config
from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.server import MODEL_SERVICE
from serving import MakeServer

FOLDER = Path(__file__).parents[2] / "deploy" / "kserve"
MOUNT = Path("/mnt/models")
RUNTIME_FIELDS = {
    *("annotations", "supportedModelFormats", "protocolVersions", "multiModel"),
    *("containers", "volumes"),
}
"""Of a ServingRuntimeSpec, which is not a whole pod: it has no securityContext, say.
Source: kserve/kserve:pkg/apis/serving/v1alpha1/servingruntime_types.go."""


def read(name: str) -> dict[str, Any]:
    """An object of the folder."""
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture
def runtime() -> dict[str, Any]:
    """The specification of the runtime."""
    spec: dict[str, Any] = read("clusterservingruntime.yaml")["spec"]
    return spec


@pytest.fixture
def settings(runtime: dict[str, Any]) -> dict[str, str]:
    """Variables of the container that have a value."""
    (container,) = runtime["containers"]
    return {one["name"]: one["value"] for one in container["env"] if "value" in one}


def test_service_asks_for_the_runtime(runtime: dict[str, Any]) -> None:
    """By its name, its format and its protocol; the pod lives as long as it drains."""
    predictor = read("inferenceservice.yaml")["spec"]["predictor"]
    model = predictor["model"]
    assert model["runtime"] == read("clusterservingruntime.yaml")["metadata"]["name"]
    (form,) = runtime["supportedModelFormats"]
    assert model["modelFormat"] == {name: form[name] for name in ("name", "version")}
    assert [model["protocolVersion"]] == runtime["protocolVersions"]
    (container,) = runtime["containers"]
    drain = {one["name"]: one.get("value") for one in container["env"]}[f"{PREFIX}DRAIN_SECONDS"]
    assert predictor["terminationGracePeriodSeconds"] >= int(str(drain)) + 10
    assert predictor["enableServiceLinks"] is False


def test_settings_and_ports_are_the_servers(
    runtime: dict[str, Any], settings: dict[str, str]
) -> None:
    """The store is where KServe mounts it; one port, which has health, too."""
    assert set(runtime) == RUNTIME_FIELDS
    config = read_config({}, environment=settings)
    assert config.models == MOUNT
    assert config.drain_seconds >= config.max_request_seconds
    (container,) = runtime["containers"]
    assert container["name"] == "kserve-container"
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == ("h2c", ServerConfig().port)
    for kind in ("startup", "readiness"):
        probe = container[f"{kind}Probe"]["grpc"]
        assert probe == {"port": port["containerPort"], "service": MODEL_SERVICE}
    assert container["livenessProbe"]["grpc"] == {"port": port["containerPort"]}
    metrics = runtime["annotations"]["prometheus.kserve.io/port"]
    assert int(metrics) == ServerConfig().metrics_port
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.needs("kubernetes-validate")
def test_container_is_one_of_kubernetes(runtime: dict[str, Any], tmp_path: Path) -> None:
    """As part of a pod, which KServe makes of it, with what the InferenceService adds."""
    predictor = read("inferenceservice.yaml")["spec"]["predictor"]
    of_kserve = {"model", "minReplicas", "maxReplicas"}
    spec = {name: runtime[name] for name in ("containers", "volumes")}
    spec |= {name: value for name, value in predictor.items() if name not in of_kserve}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": spec}
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump(pod), encoding="utf-8")
    program = shutil.which("kubernetes-validate")
    assert program is not None
    for version in ("1.35", "1.37"):
        command = [program, "--quiet", "--strict", "--kubernetes-version", version, str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("is_linked", [False, True], ids=["volume", "image"])
async def test_store_is_served_as_it_is_mounted(
    is_linked: bool,
    settings: dict[str, str],
    store: Path,
    serving: MakeServer,
    tmp_path: Path,
) -> None:
    """A folder of a volume, or a link into the root of the image that holds the store."""
    models = tmp_path / "mnt" / "models"
    models.parent.mkdir()
    if is_linked:
        models.symlink_to(store)
    else:
        shutil.copytree(store, models)
    config = read_config({}, environment=settings | {f"{PREFIX}MODELS": str(models)})
    changed = config.model_dump(include={"models", "drain_seconds", "max_request_seconds"})
    async with serving(**changed) as running:
        ready = await stub(running).ServerReady(open_inference_pb2.ServerReadyRequest())
        reply = await stub(running).ModelInfer(request("tiny", texts("a b c")))
    assert ready.ready
    assert reply.model_name == "tiny"
    assert "text" in {output.name for output in reply.outputs}
