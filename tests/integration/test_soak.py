"""The soak, in short: the server stands it, and a server with faults does not."""

import shutil
from pathlib import Path

import pytest

from soak.checks import find_violations
from soak.models import export_second_versions
from soak.soak import Settings, run_soak

SECONDS = 10.0
PLANTED_SECONDS = 6.0
FLAGS = ("--no-preflight", "--drain-seconds", "2")


@pytest.fixture(scope="module")
def models(store: Path, heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of a soak."""
    models = tmp_path_factory.mktemp("models")
    for folder in (store, heads):
        shutil.copytree(folder, models, dirs_exist_ok=True)
    export_second_versions(tmp_path_factory.mktemp("sources"), models)
    return models


async def test_server_stands_a_soak(models: Path, tmp_path: Path) -> None:
    """Nothing that must hold is violated, whatever happens to calls, callers and models."""
    records = await run_soak(Settings(seed=7, seconds=SECONDS, flags=FLAGS), models, tmp_path)
    violations = find_violations(records)
    assert {name: found for name, found in violations.items() if found} == {}
    assert records.num_calls > 200


async def test_planted_faults_are_found(models: Path, tmp_path: Path) -> None:
    """Each by the check that is there for it."""
    settings = Settings(
        seed=7,
        seconds=PLANTED_SECONDS,
        patience_seconds=3.0,
        # With room for all answers, so that those of others are found.
        flags=(*FLAGS, "--response-cache-bytes", "10000000"),
        module="soak.planted_server",
    )
    violations = find_violations(await run_soak(settings, models, tmp_path))
    for check, *parts in (
        ("each call ends once", "request 0 was answered 2 times"),
        ("each status has a cause", "ended with DEADLINE_EXCEEDED"),
        ("answers as alone", "classify/"),
        ("answers as alone", "(stream/"),
        ("answers as alone", "(embed", "(generate/", "(infer"),
        ("log as the ledgers", "the log has an unexpected line"),
        ("nothing is held", "outstanding are left"),
        ("nothing is held", "files are open"),
        ("memory is flat", "memory grows by"),
    ):
        found = [one for one in violations[check] if any(part in one for part in parts)]
        assert found, (check, parts)
