"""Whatever happens around a sequence, its answer is that of a run alone, to the last bit.

Scripts of arrivals, cancellations, deadlines and time limits are drawn, and played on the real
workers of a real model: first step by step on a clock of their own, where a script always takes the
same course, then in their threads. Each answer is compared with that of the same input alone on a
model just opened. ``test_faults_are_noticed`` shows that the comparison sees what it is for.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from numpy.typing import NDArray

from batch_scripts import Script, scripts
from lockstep import Played, differences, play_in_steps, play_in_threads
from seqserve import engine
from seqserve.batch import RowCopy
from seqserve.cache import KeyValueCache
from seqserve.cache_budget import NOTHING, CacheResize
from seqserve.choice import choose
from seqserve.served_model import ServedModel
from seqserve_export.exporter import export_model
from tiny_checkpoint import make_tiny_checkpoint

NUM_EXAMPLES = 60
NUM_THREADED = 16
FAULT_EXAMPLES = 500
"""Within which a planted fault must show; of six seeds none took more than 37."""


@pytest.fixture(scope="module")
def folders(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models in fp32, in int8 (whose keys and values are bytes), and with relative positions."""
    root = tmp_path_factory.mktemp("int8")
    export_model(make_tiny_checkpoint(root / "source", 8), root, name="small", dtype="int8")
    return {
        "fp32": store / "tiny" / "1",
        "int8": root / "small" / "1",
        "relative": store / "long" / "1",
    }


KINDS = ["fp32", "int8", "relative"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=NUM_EXAMPLES, deadline=None, print_blob=True)
@given(script=scripts())
def test_answers_are_those_of_runs_alone(
    kind: str, script: Script, folders: dict[str, Path]
) -> None:
    """Step by step: a script that fails once fails always."""
    assert differences(folders[kind], script, play_in_steps) == []


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=NUM_THREADED, deadline=None, print_blob=True)
@given(script=scripts(is_timed=False))
def test_answers_of_threads_are_those_of_runs_alone(
    kind: str, script: Script, folders: dict[str, Path]
) -> None:
    """In threads: lanes run at once, and arrivals and cancellations come when they come."""
    assert differences(folders[kind], script, play_in_threads) == []


def skip_a_copy(self: KeyValueCache, copies: list[RowCopy]) -> None:
    """One row keeps what it had."""
    COPY_ROWS(self, copies[:-1])


def swap_two_copies(self: KeyValueCache, copies: list[RowCopy]) -> None:
    """Two hypotheses get the past of each other."""
    if len(copies) > 1:
        first, second, *others = copies
        copies = [first._replace(target=second.target), second._replace(target=first.target)]
        copies += others
    COPY_ROWS(self, copies)


def leave_sources(self: KeyValueCache, copies: list[RowCopy]) -> None:
    """A row that moves reads the source of who was there before."""
    COPY_ROWS(self, [copy._replace(source_length=0) for copy in copies])


def shorten_copies(self: KeyValueCache, copies: list[RowCopy]) -> None:
    """The newest position stays behind."""
    COPY_ROWS(self, [copy._replace(target_length=copy.target_length - 1) for copy in copies])


def forget_rows(self: KeyValueCache, change: CacheResize) -> None:
    """What runs loses its past when the cache grows."""
    RESIZE(self, change._replace(kept=NOTHING))


def swap_logits(searches: Any, logits: NDArray[np.float32], ranker: Any) -> Any:
    """The first two rows are those of each other."""
    logits[:2] = logits[:2][::-1].copy()
    return choose(searches, logits, ranker)


def blur_logits(searches: Any, logits: NDArray[np.float32], ranker: Any) -> Any:
    """A batch of several rows moves the last bits, as another kernel would."""
    blurred = logits * np.float32(1 + 2**-22) if len(logits) > 1 else logits
    return choose(searches, blurred, ranker)


COPY_ROWS, RESIZE = KeyValueCache.copy_rows, KeyValueCache.resize
FAULTS: list[tuple[Any, str, Callable[..., Any]]] = [
    (KeyValueCache, "copy_rows", skip_a_copy),
    (KeyValueCache, "copy_rows", swap_two_copies),
    (KeyValueCache, "copy_rows", leave_sources),
    (KeyValueCache, "copy_rows", shorten_copies),
    (KeyValueCache, "resize", forget_rows),
    (engine, "choose", swap_logits),
    (engine, "choose", blur_logits),
]


@pytest.mark.parametrize(("place", "name", "fault"), FAULTS)
def test_faults_are_noticed(
    place: Any,
    name: str,
    fault: Callable[..., Any],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With rows that are mixed up on purpose, some script has an answer that differs."""

    async def play_with_fault(model: ServedModel, script: Script) -> list[Played]:
        with monkeypatch.context() as patch:  # runs alone are without it
            patch.setattr(place, name, fault)
            return await play_in_steps(model, script)

    def is_noticed(script: Script) -> bool:
        return differences(folders["fp32"], script, play_with_fault) != []

    script = find(
        scripts(),
        is_noticed,
        settings=settings(
            max_examples=FAULT_EXAMPLES, deadline=None, database=None, phases=[Phase.generate]
        ),
        random=random.Random(1),
    )
    assert differences(folders["fp32"], script, play_in_steps) == []
