"""The chart: it makes what kustomize makes, and refuses what cannot be meant."""

import json
import shutil
import subprocess

import pytest
import yaml

from deploy_files import SCHEMA, values_schema
from deploy_objects import CHART, KUSTOMIZATIONS, Objects, example, kustomize, plain, read, template

pytestmark = pytest.mark.needs("kubectl", "helm")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it on the chart."""
    program = shutil.which("helm")
    assert program is not None
    command, *rest = arguments
    return subprocess.run(
        [program, command, *(("seqserve",) if command == "template" else ()), str(CHART), *rest],
        capture_output=True,
        text=True,
    )


def test_every_kustomization_has_an_example() -> None:
    """Of the same name."""
    assert {path.stem for path in (CHART / "examples").iterdir()} == set(KUSTOMIZATIONS)


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_objects_are_those_of_kustomize(name: str) -> None:
    """But for labels and names that say who made them, and the pod of `helm test`."""
    of_helm = plain(read(template(name)))
    of_kustomize = plain(read(kustomize(name)))
    assert set(of_helm) == set(of_kustomize)
    for key, one in of_kustomize.items():
        assert of_helm[key] == one


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_lint_finds_nothing(name: str) -> None:
    """With the values of each example."""
    done = helm("lint", "--strict", "--values", str(example(name)))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_schema_has_the_settings_of_the_server() -> None:
    """`make deploy-files` writes them; none that other values decide."""
    assert SCHEMA.read_text(encoding="utf-8") == values_schema()


def test_every_value_has_a_schema_and_a_default() -> None:
    """Nothing is taken that is not described."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"]
    assert set(values) == set(schema) - {"global"}
    for name, value in values.items():
        if schema[name].get("additionalProperties") is False:
            assert set(value) <= set(schema[name]["properties"]), name
            if name != "settings":
                assert set(value) == set(schema[name]["properties"]), name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("replicas=-1", "at '/replicas': minimum: got -1, want 0"),
        ("replica=2", "additional properties 'replica' not allowed"),
        ("settings.max_batch=3", "at '/settings': additional properties 'max_batch' not allowed"),
        ("settings.max_batch_size=0", "at '/settings/max_batch_size': minimum: got 0, want 1"),
        ("settings.log_level=loud", "at '/settings/log_level': value must be one of"),
        ("settings.port=80", "additional properties 'port' not allowed"),
        ("resources.memory=2GB", "at '/resources/memory': '2GB' does not match pattern"),
        ("resources.cpu=0", "at '/resources/cpu': exclusiveMinimum: got 0, want 0"),
        ("resources.gpus=2", "at '/resources/gpus': maximum: got 2, want 1"),
        ("image.digest=sha256:12", "at '/image/digest': 'sha256:12' does not match pattern"),
        ("models.source=hub", "at '/models/source': value must be one of 'claim', 'image'"),
        ("models.image.reference=store", "at '/models/image/reference': 'store' does not match"),
        ("autoscaling.by=gpu", "at '/autoscaling/by': value must be one of 'none', 'cpu', 'queue'"),
        ("tls.secret=My_Secret", "at '/tls/secret': 'My_Secret' does not match pattern"),
        (
            "replicas=2",
            "replicas is 2, but models.claim.accessMode ReadWriteOnce is of one node: use "
            "ReadWriteMany, or another models.source",
        ),
        ("autoscaling.by=cpu", "autoscaling needs a store that pods of several nodes can have"),
        (
            "autoscaling.by=cpu,replicas=2,models.source=image",
            "replicas has no effect with autoscaling: set autoscaling.minReplicas",
        ),
        (
            "autoscaling.minReplicas=5,autoscaling.maxReplicas=4",
            "autoscaling.minReplicas (5) exceeds autoscaling.maxReplicas (4)",
        ),
        (
            "autoscaling.by=cpu,resources.gpus=1,models.source=image",
            "autoscaling.by cpu says nothing about a GPU: use queue",
        ),
        (
            "settings.drain_seconds=5",
            "settings.drain_seconds (5) is below settings.max_request_seconds (60): a pod that "
            "goes would cut calls",
        ),
    ],
)
def test_nonsense_is_refused(values: str, message: str) -> None:
    """By the schema, or by a sentence where values contradict each other."""
    done = helm("template", "--set", values)
    assert done.returncode != 0
    assert message in done.stderr


def test_settings_come_as_the_server_reads_them() -> None:
    """Large numbers are written out, and the grace follows the drain."""
    done = helm(
        "template",
        *("--set", "settings.max_outstanding_tokens=20000000,settings.reflection=false"),
        *("--set-json", "settings.drain_seconds=90.5", "--set", "preStopSeconds=7"),
    )
    objects = read(done.stdout)
    settings = objects["ConfigMap", "seqserve-settings"]["data"]
    assert settings["SEQSERVE_MAX_OUTSTANDING_TOKENS"] == "20000000"
    assert settings["SEQSERVE_REFLECTION"] == "false"
    assert settings["SEQSERVE_DRAIN_SECONDS"] == "90.5"
    pod = objects["Deployment", "seqserve"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 7 + 91 + 10


def test_another_release_has_other_names() -> None:
    """Two in one namespace share nothing, and select their own pods."""
    program = shutil.which("helm")
    assert program is not None
    command = [program, "template", "second", str(CHART)]
    objects: Objects = read(subprocess.run(command, capture_output=True, text=True).stdout)
    assert not set(objects) & set(read(template("base")))
    assert all(name.startswith("second-seqserve") for _, name in objects)
    (selector,) = [
        one["spec"]["selector"]
        for (_, name), one in objects.items()
        if name == "second-seqserve-headless"
    ]
    assert selector["app.kubernetes.io/instance"] == "second"


def test_pod_of_the_chart_test_calls_the_service() -> None:
    """`helm test` lists models, as confined as the server; it is no backend of the service."""
    objects = read(template("base"))
    pod = objects["Pod", "seqserve-test-models"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    assert container["args"][:3] == ["models", "--target", "seqserve:50051"]
    server = objects["Deployment", "seqserve"]["spec"]["template"]
    assert container["image"] == server["spec"]["containers"][0]["image"]
    assert pod["spec"]["securityContext"] == server["spec"]["securityContext"]
    selector = objects["Service", "seqserve"]["spec"]["selector"]
    assert not selector.items() <= pod["metadata"]["labels"].items()
    assert ("Pod", "seqserve-test-models") not in read(template("mtls"))
