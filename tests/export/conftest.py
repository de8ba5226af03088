"""Fixtures of the export tests: checkpoints that are made once, and exported once."""

import shutil
from pathlib import Path

import pytest
import torch

from seqserve_export.exporter import export_model
from tiny_checkpoint import make_tiny_checkpoint
from tiny_hugging_face import make_hugging_face_folder
from tiny_onnx_folders import replace_encoder_decoder_weights

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


@pytest.fixture(scope="session")
def bart_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two graphs of a BART; not to be changed."""
    folder = make_hugging_face_folder("bart", tmp_path_factory.mktemp("bart") / "bart")
    replace_encoder_decoder_weights(folder)
    return folder


@pytest.fixture
def bart_copy(bart_graphs: Path, tmp_path: Path) -> Path:
    """A folder with two graphs of a BART, to be changed."""
    return Path(shutil.copytree(bart_graphs, tmp_path / "bart"))
