"""What encoders are calibrated on: the sources they will see, pairs and masks included."""

from pathlib import Path

import pytest

from seqserve.manifest import read_manifest
from seqserve.task_record import Task
from seqserve_export.encoder_filling import encode_texts
from seqserve_export.encoder_folder import read_encoder_folder
from seqserve_export.exporter import export_model
from seqserve_export.source import EmbeddingSource, PredictionSource
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder

TEXTS = ("the cat sat on the mat", "rain fell over the hills")


def read(folder: Path, task: Task) -> EmbeddingSource | PredictionSource:
    """A tiny BERT of a task."""
    make_tiny_encoder_folder(folder, find_variant("bert"), task)
    return read_encoder_folder(folder, is_pickle_allowed=False)


def test_rerankers_see_pairs(tmp_path: Path) -> None:
    """Each text with the next, the last with the first; the second has type 1."""
    source = read(tmp_path, Task.RERANK)
    encodings = source.tokenizer.encode_batch([TEXTS, TEXTS[::-1]])
    assert encode_texts(source, TEXTS) == [
        (encoding.ids, encoding.type_ids) for encoding in encodings
    ]
    assert set(encodings[0].type_ids) == {0, 1}


def test_mask_models_see_masks(tmp_path: Path) -> None:
    """As in service, where no source comes without one."""
    source = read(tmp_path, Task.FILL_MASK)
    assert isinstance(source, PredictionSource)
    for (tokens, _), text in zip(encode_texts(source, TEXTS), TEXTS, strict=True):
        plain = source.tokenizer.encode(text).ids
        changed = [token for token, other in zip(tokens, plain, strict=True) if token != other]
        assert changed
        assert set(changed) == {source.mask_token}


def test_others_see_texts(tmp_path: Path) -> None:
    """One a source, cut to what the model can read."""
    source = read(tmp_path, Task.EMBED)
    sources = encode_texts(source, [*TEXTS, " ".join(TEXTS) * 20])
    assert [tokens for tokens, _ in sources[:2]] == [
        source.tokenizer.encode(text).ids for text in TEXTS
    ]
    assert len(sources[2][0]) == source.max_source_length
    assert {types for _, types in sources} == {None}


@pytest.mark.parametrize("task", [Task.RERANK, Task.FILL_MASK])
def test_models_with_heads_in_int8(task: Task, tmp_path: Path) -> None:
    """They are exported with a record of each layer of the encoder."""
    read(tmp_path / "source", task)
    report = export_model(tmp_path / "source", tmp_path / "store", name="m", dtype="int8")
    manifest = read_manifest(report.folder)
    assert manifest.is_batch_invariant
    assert manifest.layers is not None
    assert all(layer.name.startswith("encoder.layers.") for layer in manifest.layers)
