"""Objects of Kubernetes as ``kubectl kustomize`` and ``helm template`` make them of ``deploy/``."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "deploy"
CHART = FOLDER / "helm" / "seqserve"
KUSTOMIZATIONS = {
    "base": FOLDER / "kustomize" / "base",
    **{path.name: path for path in sorted((FOLDER / "kustomize" / "overlays").iterdir())},
}
"""Everything that can be applied, by name; the chart has an example for each."""
_OF_HELM = re.compile(
    r"^(helm\.sh/.+|checksum/.+|app\.kubernetes\.io/(instance|version|managed-by))$"
)

Objects = dict[tuple[str, str], dict[str, Any]]
"""By kind and name."""


@functools.cache
def kustomize(name: str) -> str:
    """What ``kubectl apply -k`` would apply, as YAML."""
    return _run("kubectl", "kustomize", str(KUSTOMIZATIONS[name]))


@functools.cache
def template(name: str) -> str:
    """What ``helm install seqserve`` with an example's values would apply, as YAML."""
    return _run("helm", "template", "seqserve", str(CHART), "--values", str(example(name)))


def example(name: str) -> Path:
    """The values that come to the same as a kustomization."""
    return CHART / "examples" / f"{name}.yaml"


def read(text: str) -> Objects:
    """The objects of several documents."""
    objects = [one for one in yaml.safe_load_all(text) if one]
    found = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    assert len(found) == len(objects), "an object is there twice"
    return found


def plain(objects: Objects) -> Objects:
    """Objects without what tells who made them: Helm's labels and hooks, kustomize's hashes."""
    text = json.dumps([one for one in objects.values() if not _is_hook(one)])
    text = re.sub(r"\bseqserve-settings-[a-z0-9]{10}\b", "seqserve-settings", text)
    return {(one["kind"], one["metadata"]["name"]): _strip(one) for one in json.loads(text)}


def pod_of(objects: Objects) -> dict[str, Any]:
    """The specification of the server's pods."""
    spec: dict[str, Any] = objects["Deployment", "seqserve"]["spec"]["template"]["spec"]
    return spec


def settings_of(objects: Objects) -> dict[str, str]:
    """The variables that the ConfigMap sets."""
    (data,) = [one["data"] for (kind, _), one in objects.items() if kind == "ConfigMap"]
    settings: dict[str, str] = data
    return settings


def _is_hook(item: dict[str, Any]) -> bool:
    return "helm.sh/hook" in item["metadata"].get("annotations", {})


def _strip(value: Any) -> Any:
    if isinstance(value, list):
        return [_strip(one) for one in value]
    if isinstance(value, str):
        return " ".join(value.split())  # kustomize adds empty lines to folded texts
    if not isinstance(value, dict):
        return value
    kept = {key: _strip(one) for key, one in value.items() if not _OF_HELM.match(key)}
    return {key: one for key, one in kept.items() if one or key != "annotations"}


def _run(program: str, *arguments: str) -> str:
    path = shutil.which(program)
    assert path is not None
    done = subprocess.run([path, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
