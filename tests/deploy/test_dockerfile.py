"""The image: ports, user and variables agree with the server, and no torch comes in."""

import re
import tomllib
from pathlib import Path

from seqserve.config import PREFIX, ServerConfig

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
DEFAULTS = ServerConfig()


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
    """What is installed is the project and its tokenizers, under the pins; it runs as 65532."""
    installs = re.findall(r"pip install .+", TEXT)
    assert len(installs) == 1
    assert installs[0].split()[-1] == "'.[sentencepiece]'"
    assert "--constraint constraints.txt" in installs[0]
    assert re.search(r"^USER 65532:65532$", TEXT, re.MULTILINE)


def test_version_is_the_projects() -> None:
    """The label and the tag of the kustomization name the version that is built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = ROOT / "deploy" / "kustomize" / "base" / "kustomization.yaml"
    (label,) = re.findall(r'image\.version="(.+)"', TEXT)
    (tag,) = re.findall(r"newTag: (.+)", base.read_text(encoding="utf-8"))
    assert label == tag == project["version"]


def test_no_dependency_of_the_server_is_removed() -> None:
    """What the build uninstalls is none of what the project asks for itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=]", dependency)[0] for dependency in project["dependencies"]}
    (removed,) = re.findall(r"pip uninstall --yes (.+?) &&", TEXT.replace("\\\n", " "))
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
    for line in re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}\n" in allowed
