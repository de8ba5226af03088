"""What onnxruntime would report to its maker is not reported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from processes import ROOT


def files_after(home: Path, statements: str, **variables: str) -> list[str]:
    """What a process leaves in its home; onnxruntime keeps an id and its reports there."""
    home.mkdir()
    # It is silent where it finds itself in tests.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    for name in ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    paths = os.pathsep.join(str(ROOT / name) for name in ("service", "export"))
    environment |= {"HOME": str(home), "PYTHONPATH": paths} | variables
    subprocess.run([sys.executable, "-c", statements], check=True, env=environment)
    return sorted(path.name for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "statements",
    [
        "import seqserve.session",
        "import seqserve.server, seqserve.preflight_process",
        "import seqserve_export.onnx_reference",
    ],
)
def test_nothing_is_kept_to_be_reported(tmp_path: Path, statements: str) -> None:
    """No id is made, whichever of our modules comes first."""
    assert files_after(tmp_path / "home", statements) == []


def test_who_asks_for_it_gets_it(tmp_path: Path) -> None:
    """The variable of the environment wins; this also shows that the test above would notice."""
    found = files_after(tmp_path / "home", "import seqserve.session", ORT_DISABLE_TELEMETRY="0")
    assert "deviceid" in found
