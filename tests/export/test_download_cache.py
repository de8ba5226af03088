"""Checkpoints as the hub's client keeps them: links to files that are named by their content."""

from pathlib import Path

import pytest

from seqserve.config import ServerConfig
from seqserve.metrics import Metrics
from seqserve.model_opening import open_model
from seqserve_export.exporter import export_model
from tiny_sentence_folder import make_tiny_sentence_folder


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A checkpoint whose every file is a link out of its folder."""
    whole = make_tiny_sentence_folder(tmp_path / "whole", 1)
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    files = [path for path in whole.rglob("*") if path.is_file()]
    for number, path in enumerate(files):
        blob = path.rename(blobs / f"{number:040x}")
        link = snapshot / path.relative_to(whole)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return snapshot


def test_links_are_followed(snapshot: Path, tmp_path: Path) -> None:
    """The exported model has files of its own, and can be served."""
    export_model(snapshot, tmp_path / "store", name="linked")
    folder = tmp_path / "store" / "linked" / "1"
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert open_model(folder, ServerConfig(threads=1), Metrics()).label == "linked/1"
