"""Scripts of arrivals of every kind, played on the engine of a device.

The processor stands in for the device. Each answer is compared with that of the same input alone on
the engine of the processor, as in ``test_batch_invariance``.
"""

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, find, given, settings

import lockstep
from batch_scripts import MAX_ROWS, MAX_SOURCE_LENGTH, MAX_TARGET_LENGTH, Script, scripts
from lockstep import differences, play_in_steps
from seqserve import device_engine, lane_engine
from seqserve.batch import RowCopy
from seqserve.best_choice import choose_best
from seqserve.cache_budget import CacheExtent
from seqserve.device_cache import DeviceCache
from seqserve.device_engine import DeviceEngine
from seqserve.generation_graphs import GenerationGraphs, open_device_graphs, open_generation_graphs
from seqserve.manifest import Manifest, read_manifest
from seqserve_export.exporter import export_model
from tiny_checkpoint import make_tiny_checkpoint

NUM_EXAMPLES = 40
FAULT_EXAMPLES = 500
"""Within which a planted fault must show."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in fp16."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("half")
    return export_model(
        make_tiny_checkpoint(root / "source", 8), root, name="small", dtype="fp16"
    ).folder


@pytest.fixture
def _device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are opened as on a device, with what the rows of its cache cost."""
    device_graphs = open_device_graphs(folder, read_manifest(folder), num_threads=1, device="cpu")

    def make_engine(graphs: GenerationGraphs, manifest: Manifest, **settings: Any) -> DeviceEngine:
        return DeviceEngine(graphs, device_graphs, manifest, device_type="cpu", **settings)

    @functools.cache
    def row_bytes(folder: Path) -> int:
        manifest = read_manifest(folder)
        graphs = open_generation_graphs(folder, manifest, num_threads=1)
        engine = make_engine(graphs, manifest, max_rows=MAX_ROWS)
        return engine.budget(0).bytes_for(CacheExtent(1, MAX_TARGET_LENGTH, MAX_SOURCE_LENGTH))

    monkeypatch.setattr(lane_engine, "GenerationEngine", make_engine)
    monkeypatch.setattr(lockstep, "_row_bytes", row_bytes)


@pytest.mark.usefixtures("_device")
def test_answers_of_a_device_are_those_of_runs_alone(folder: Path) -> None:
    """Whatever joins, leaves, ends early or rests around a sequence."""

    @settings(max_examples=NUM_EXAMPLES, deadline=None, print_blob=True)
    @given(script=scripts())
    def play(script: Script) -> None:
        assert differences(folder, script, play_in_steps) == []

    play()


def skip_a_copy(self: DeviceCache, copies: list[RowCopy]) -> None:
    """One row keeps what it had."""
    COPY_ROWS(self, copies[:-1])


def leave_sources(self: DeviceCache, copies: list[RowCopy]) -> None:
    """A row that moves reads the source of who was there before."""
    COPY_ROWS(self, [copy._replace(source_length=0) for copy in copies])


def turn_best_tokens(searches: Any, best_tokens: list[int]) -> Any:
    """Each row gets the token of its neighbour."""
    return choose_best(searches, best_tokens[1:] + best_tokens[:1])


COPY_ROWS = DeviceCache.copy_rows


@pytest.mark.usefixtures("_device")
@pytest.mark.parametrize(
    ("place", "name", "fault"),
    [
        (DeviceCache, "copy_rows", skip_a_copy),
        (DeviceCache, "copy_rows", leave_sources),
        (device_engine, "choose_best", turn_best_tokens),
    ],
)
def test_faults_of_a_device_are_noticed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Any,
    name: str,
    fault: Callable[..., Any],
) -> None:
    """With rows that are mixed up on purpose, some script has an answer that differs."""
    with monkeypatch.context() as patch:
        patch.setattr(place, name, fault)
        script = find(
            scripts(),
            lambda script: differences(folder, script, play_in_steps) != [],
            settings=settings(
                max_examples=FAULT_EXAMPLES, deadline=None, database=None, phases=[Phase.generate]
            ),
            random=random.Random(1),
        )
    assert differences(folder, script, play_in_steps) == []
