"""Models that are tried in a process of their own, which may crash and takes the blame."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crashing_graph import plant_crash
from processes import ROOT, start_process
from seqserve.config import ServerConfig
from seqserve.errors import ModelFolderError
from seqserve.preflight_process import Preflights
from served_folders import copy_version

CRASHED = (
    "{folder} ended its pre-flight process with signal 11 (SIGSEGV){said}: opening it would crash "
    "the server; export the model again, or take it out of the store (or raise --preflight-bytes, "
    "if memory is what it lacked)"
)


@pytest.fixture
def folder(store: Path, tmp_path: Path) -> Path:
    """A model to spoil."""
    return copy_version(store / "tiny" / "1", tmp_path / "store" / "tiny" / "2")


def refusal(folder: Path, **settings: object) -> str:
    """The message with which a pre-flight ends."""
    config = ServerConfig.model_validate(settings)
    with pytest.raises(ModelFolderError) as caught:
        Preflights(config).check(folder)
    return str(caught.value)


def test_model_that_can_be_served_passes(folder: Path) -> None:
    """The process says in one line what it has tried, what it took, and ends with 0."""
    command = [sys.executable, "-m", "seqserve.preflight", str(folder)]
    result = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "service")}
    )
    assert (result.returncode, result.stderr) == (0, "")
    verdict = json.loads(result.stdout)
    assert verdict.keys() == {"model", "seconds", "peak_bytes"}
    assert verdict["model"] == "tiny/2"
    assert 0 < verdict["peak_bytes"] < 2**30


def test_model_that_cannot_be_served_is_refused_with_the_reason(folder: Path) -> None:
    """The message of the process is that of the server."""
    (folder / "decode.onnx").write_bytes(b"")
    assert "decode.onnx is not the file of the manifest: 0 bytes" in refusal(folder)


def test_graph_that_crashes_onnxruntime_stops_a_start_with_one_line(folder: Path) -> None:
    """The process in which it was tried is lost, and the server says of which model, and how."""
    plant_crash(folder)
    process = start_process(folder.parents[1])
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert errors == f"error: {CRASHED.format(folder=folder, said='')}\n"


def test_model_that_takes_too_long_is_refused(folder: Path) -> None:
    """The setting is named."""
    assert refusal(folder, preflight_seconds=0.01) == (
        f"{folder} took longer than 0.01 seconds in pre-flight; raise --preflight-seconds if it is "
        "that large"
    )


def test_model_that_takes_too_much_memory_is_refused(folder: Path) -> None:
    """The limit holds for the process alone, and is named."""
    message = refusal(folder, preflight_bytes=30_000_000)
    # Python says so itself, or a library aborts, by whose turn it was.
    python = message.startswith(f"{folder} needs more than 30000000 bytes")
    library = message.startswith(f"{folder} ended its pre-flight process with signal 6 (SIGABRT)")
    assert python or (library and "memory allocation" in message)
    assert "raise --preflight-bytes" in message


def test_all_bad_models_are_named_at_once(folder: Path) -> None:
    """An operator mends them in one go."""
    other = copy_version(folder, folder.parent / "3")
    for one in (folder, other):
        (one / "decode.onnx").unlink()
    with pytest.raises(ModelFolderError) as caught:
        Preflights(ServerConfig()).check_all([folder, other])
    assert str(caught.value) == "; ".join(
        f"{one / 'decode.onnx'} is listed in the manifest but does not exist"
        for one in (folder, other)
    )


def test_preflights_that_were_ended_try_no_more(folder: Path) -> None:
    """A server that is being stopped waits for none."""
    preflights = Preflights(ServerConfig())
    preflights.close()
    with pytest.raises(ModelFolderError, match="was not tried: the server is being stopped"):
        preflights.check(folder)
