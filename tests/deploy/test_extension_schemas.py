"""Objects of KEDA, the Prometheus Operator and the Gateway API, by their schemas."""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from deploy_objects import FOLDER, Objects, kustomize, plain, read
from requirement import PROGRAMS

pytestmark = pytest.mark.needs("kubectl", "node", "schemas")
KINDS = {"ScaledObject", "PodMonitor", "PrometheusRule", "GRPCRoute"}
Change = Callable[[Objects], Any]


def check(objects: Objects) -> tuple[int, str]:
    """Exit code of ``deploy/schemas.mjs`` and what it found."""
    program = shutil.which("node")
    assert program is not None
    done = subprocess.run(
        [program, str(FOLDER / "schemas.mjs"), str(PROGRAMS / "node_modules")],
        input=json.dumps(list(objects.values())),
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr.strip()


@pytest.fixture
def objects() -> Objects:
    """Those of the overlay that has all of them."""
    return copy.deepcopy(plain(read(kustomize("platform"))))


def test_objects_are_valid(objects: Objects) -> None:
    """All of them, and they are looked at."""
    assert {kind for kind, _ in objects} >= KINDS
    assert check(objects) == (0, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda o: o["ScaledObject", "seqserve"]["spec"].update(poling=3),
            "ScaledObject seqserve: spec.poling is unknown",
        ),
        (
            lambda o: o["ScaledObject", "seqserve"]["spec"].pop("triggers"),
            "ScaledObject seqserve: data/spec must have required property triggers",
        ),
        (
            lambda o: o["ScaledObject", "seqserve"]["spec"]["triggers"][0]["metadata"].update(
                threshold=32
            ),
            "ScaledObject seqserve: data/spec/triggers/0/metadata/threshold must be string",
        ),
        (
            lambda o: o["PodMonitor", "seqserve"]["spec"]["podMetricsEndpoints"][0].update(prt="x"),
            "PodMonitor seqserve: spec.podMetricsEndpoints[0].prt is unknown",
        ),
        (
            lambda o: o["PrometheusRule", "seqserve"]["spec"]["groups"][0].update(rule=[]),
            "PrometheusRule seqserve: spec.groups[0].rule is unknown",
        ),
        (
            lambda o: o["GRPCRoute", "seqserve"].update(kind="GrpcRoute"),
            "GrpcRoute seqserve: gateway.networking.k8s.io/v1 has no such kind",
        ),
    ],
)
def test_mistakes_are_found(objects: Objects, change: Change, message: str) -> None:
    """Also keys that nobody knows, which the schemas alone would let pass."""
    change(objects)
    assert check(objects) == (1, message)


def test_nothing_to_check_is_a_failure(objects: Objects) -> None:
    """Objects of Kubernetes itself have another check."""
    kept = {key: one for key, one in objects.items() if one["apiVersion"] == "v1"}
    assert check(kept) == (1, "there is no object of an extension")
