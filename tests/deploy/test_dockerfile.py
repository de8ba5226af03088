"""The image: ports, user and variables agree with the server, and no torch comes in."""

import re
import tomllib
from pathlib import Path

from deploy_files import GIVEN_ELSEWHERE
from seqserve.config import ServerConfig
from seqserve.config_source import PREFIX

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
DEFAULTS = ServerConfig()


def stage(name: str) -> str:
    """The text of one stage."""
    (found,) = re.findall(rf"^FROM \S+ AS {name}\n(?:(?!FROM ).*\n?)*", TEXT, re.MULTILINE)
    return str(found)


def test_exposed_ports_are_the_servers() -> None:
    """EXPOSE names the defaults."""
    (ports,) = re.findall(r"^EXPOSE (.+)$", TEXT, re.MULTILINE)
    expected = [DEFAULTS.port, DEFAULTS.health_port, DEFAULTS.metrics_port]
    assert [int(port) for port in ports.split()] == expected


def test_variables_are_settings() -> None:
    """The server would refuse to start with any other."""
    names = re.findall(rf"{PREFIX}(\w+)=", TEXT)
    assert names
    assert {name.lower() for name in names} <= set(ServerConfig.model_fields)


def test_no_torch_is_installed_and_the_user_is_not_root() -> None:
    """A server has the project and its tokenizers, under the pins; it runs as 65532."""
    installs = re.findall(r"pip install .+", stage("build") + stage("build-gpu"))
    assert all("--constraint constraints.txt" in one for one in installs)
    wanted = [one.removesuffix(" \\").split()[-1].strip("'") for one in installs]
    assert wanted[:2] == [".[playground,sentencepiece,tracing]", "cyclonedx-bom"]
    assert re.fullmatch(r"onnxruntime-gpu\[cuda,cudnn\]==.+", wanted[2])
    assert len(wanted) == 3
    for name in ("server", "export"):
        assert re.search(r"^USER 65532:65532$", stage(name), re.MULTILINE)
    for name in ("cpu", "gpu"):
        assert stage(name).startswith("FROM server AS ")
        assert "USER" not in stage(name)


def test_image_has_what_settings_need() -> None:
    """The chart takes these settings, and a server without the extra would refuse to start."""
    needed = {
        extra
        for name, field in ServerConfig.model_fields.items()
        if name not in GIVEN_ELSEWHERE
        for extra in re.findall(r"seqserve\[(\w+)\]", field.description or "")
    }
    (extras,) = re.findall(r"'\.\[(.+)\]'", stage("build"))
    assert needed
    assert needed <= set(extras.split(","))
    listed = re.findall(r"'\.\[(.+)\]'", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert extras in listed  # by `make sbom`


def test_gpu_has_the_onnxruntime_that_is_pinned() -> None:
    """The same version, built for CUDA."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (pinned,) = re.findall(r"^onnxruntime==(.+)$", constraints, re.MULTILINE)
    assert re.findall(r"onnxruntime-gpu\[.+\]==([0-9.]+)", TEXT) == [pinned]


def test_default_target_is_the_server_for_processors() -> None:
    """The last stage is what is built where no target is named."""
    assert re.findall(r"^FROM \S+ AS (\S+)$", TEXT, re.MULTILINE)[-1] == "cpu"


def test_version_is_the_projects() -> None:
    """Labels, the tag of the kustomization and the chart name the version that is built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = ROOT / "deploy" / "kustomize" / "base" / "kustomization.yaml"
    chart = ROOT / "deploy" / "helm" / "seqserve" / "Chart.yaml"
    found = re.findall(r'image\.version="(.+)"', TEXT)
    found += re.findall(r"newTag: (.+)", base.read_text(encoding="utf-8"))
    found += re.findall(r"^(?:appV|v)ersion: (.+)", chart.read_text(encoding="utf-8"), re.MULTILINE)
    assert found == [project["version"]] * 5


def test_no_dependency_of_the_server_is_removed() -> None:
    """What the build uninstalls is none of what the project asks for itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=]", dependency)[0] for dependency in project["dependencies"]}
    script = (ROOT / "deploy" / "trim_server.sh").read_text(encoding="utf-8")
    (removed,) = re.findall(r"pip uninstall --yes (.+?)\n", script.replace("\\\n", " "))
    assert "pip" in removed.split()
    assert needed.isdisjoint(name.replace("_", "-") for name in removed.split())


def test_build_backend_is_pinned() -> None:
    """The constraints do not reach the environment that pip builds in."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (backend,) = tomllib.loads(text)["build-system"]["requires"]
    assert re.fullmatch(r"hatchling==[0-9.]+", backend)


def test_copied_files_pass_the_ignore_file() -> None:
    """Everything that is copied from the context is there, and let in."""
    allowed = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    lines = re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}\n" in allowed
