"""Fixtures of the export tests: checkpoints that are made once, and exported once."""

from pathlib import Path

import pytest
import torch

from seqserve_export.exporter import export_model
from tiny_checkpoint import make_tiny_checkpoint

TINY_SEED = 8


@pytest.fixture(scope="session", autouse=True)
def _single_thread() -> None:
    """Keeps torch on one thread: on tiny matrices more threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of a tiny Transformer; not to be changed."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", TINY_SEED)


@pytest.fixture(scope="session")
def tiny_store(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the tiny model exported as ``tiny/1``; not to be changed."""
    store = tmp_path_factory.mktemp("store")
    export_model(tiny_checkpoint, store, name="tiny")
    return store
