"""Pickled weights: refused by default, and never run."""

import os
from pathlib import Path

import pytest
import torch

from seqserve_export.errors import CheckpointError, ExportError, UnsupportedError
from seqserve_export.sentence_folder import read_sentence_folder
from tiny_sentence_folder import make_tiny_bert, make_tiny_sentence_folder


class Payload:
    """An object whose pickle makes a folder when it is read."""

    def __init__(self, evidence: Path) -> None:
        self._evidence = evidence

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """What unpickling would call."""
        return os.mkdir, (str(self._evidence),)


@pytest.fixture
def pickle_folder(tmp_path: Path) -> Path:
    """A folder whose only weights are a pickle."""
    folder = make_tiny_sentence_folder(tmp_path / "folder", 1)
    (folder / "model.safetensors").unlink()
    torch.save(make_tiny_bert(1).state_dict(), folder / "pytorch_model.bin")
    return folder


def test_pickle_is_refused_by_default(pickle_folder: Path) -> None:
    """The message names the file and the option."""
    with pytest.raises(UnsupportedError, match=r"pytorch_model\.bin is a pickle.*--allow-pickle"):
        read_sentence_folder(pickle_folder, is_pickle_allowed=False)


def test_allowed_pickle_is_read(pickle_folder: Path) -> None:
    """Allowed, a plain table of tensors gives the weights that SafeTensors would."""
    source = read_sentence_folder(pickle_folder, is_pickle_allowed=True)
    expected = make_tiny_bert(1).state_dict()["embeddings.word_embeddings.weight"]
    assert torch.equal(source.model.embedding.token.weight, expected)


@pytest.mark.parametrize("is_allowed", [False, True])
@pytest.mark.parametrize("is_nested", [False, True])
def test_planted_code_never_runs(pickle_folder: Path, is_allowed: bool, is_nested: bool) -> None:
    """A pickle that would run code is refused before it does, alone or among weights."""
    evidence = pickle_folder / "evidence"
    content = {"weight": Payload(evidence)} if is_nested else Payload(evidence)
    torch.save(content, pickle_folder / "pytorch_model.bin")
    with pytest.raises(ExportError, match=r"pytorch_model\.bin is "):
        read_sentence_folder(pickle_folder, is_pickle_allowed=is_allowed)
    assert not evidence.exists()


def test_payload_would_run(tmp_path: Path) -> None:
    """The planted code does run when a pickle is read without care."""
    evidence = tmp_path / "evidence"
    torch.save(Payload(evidence), tmp_path / "planted.pt")
    torch.load(tmp_path / "planted.pt", weights_only=False)
    assert evidence.is_dir()


def test_other_content_is_refused(pickle_folder: Path) -> None:
    """A pickle that holds anything but named tensors is refused."""
    torch.save({"weights": [1, 2, 3]}, pickle_folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="must hold a table from names to tensors"):
        read_sentence_folder(pickle_folder, is_pickle_allowed=True)


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x02broken"])
def test_malformed_pickle_is_refused(pickle_folder: Path, content: bytes) -> None:
    """Bytes that are no pickle are a malformed checkpoint."""
    (pickle_folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a plain table of tensors"):
        read_sentence_folder(pickle_folder, is_pickle_allowed=True)


def test_safetensors_are_preferred(pickle_folder: Path) -> None:
    """Where both are there, the pickle is not touched."""
    make_tiny_sentence_folder(pickle_folder.parent / "other", 1)
    weights = pickle_folder.parent / "other" / "model.safetensors"
    weights.rename(pickle_folder / "model.safetensors")
    (pickle_folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    read_sentence_folder(pickle_folder, is_pickle_allowed=True)
