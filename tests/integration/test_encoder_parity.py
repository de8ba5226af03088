"""Every encoder family and every head: what is served is what ``transformers`` computes.

Tracing a graph takes seconds, so each family stands here with one head and BERT with all; that
every head of every family is mapped rightly is tested without graphs (``test_encoder_folder``).
With ``--parity-table FILE`` all pairs run, and their differences are written to the file.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parity_table import ParityTable
from seqserve.manifest import Manifest
from seqserve.task_record import Task
from seqserve_export.exporter import export_model
from seqserve_export.onnx_runner import Floats, SourceRunner
from tiny_encoder_folder import (
    MODEL_CLASSES,
    VARIANTS,
    VOCABULARY_SIZE,
    Variant,
    find_variant,
    make_tiny_encoder_folder,
)

TOLERANCE = 1e-4
NUM_SOURCES = 64
MASK_TOKEN = 4
TASKS = tuple(MODEL_CLASSES)

_HEADS = {
    "roberta": Task.CLASSIFY,
    "xlm-roberta": Task.FILL_MASK,
    "camembert": Task.CLASSIFY_TOKENS,
    "distilbert": Task.CLASSIFY,
    "albert": Task.FILL_MASK,
    "mpnet": Task.EMBED,
    "electra": Task.FILL_MASK,
    "deberta-v3": Task.CLASSIFY,
    "deberta-v2-xlarge": Task.EMBED,
    "deberta-v2-own-projections": Task.EMBED,
    "modernbert": Task.CLASSIFY_TOKENS,
    "modernbert-mean-bias": Task.CLASSIFY,
}
"""The head that each family is tested with."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One case for each family and head, or as many as fit into a run of all tests."""
    if "variant" not in metafunc.fixturenames:
        return
    if metafunc.config.getoption("--parity-table"):
        cases = [(variant, task) for variant in VARIANTS for task in TASKS]
    else:
        pairs = [("bert", task) for task in TASKS] + list(_HEADS.items())
        cases = [(find_variant(name), task) for name, task in pairs]
    metafunc.parametrize(("variant", "task"), cases, ids=str)


def test_served_model_equals_transformers(
    variant: Variant, task: Task, tmp_path: Path, parity_table: ParityTable
) -> None:
    """Ragged batches in ONNX give what transformers gives for each row alone, unpadded."""
    torch.set_num_threads(1)
    folder = make_tiny_encoder_folder(tmp_path / "source", variant, task)
    report = export_model(folder, tmp_path / "store")
    manifest = report.manifest
    assert manifest.tasks == (task,)
    assert manifest.family == variant.model_type
    assert manifest.is_batch_invariant
    sources, types = _make_sources(manifest)
    expected = _expect(folder, task, sources, types)
    actual = _run(report.folder, manifest, sources, types)
    worst = 0.0
    for row, (wanted, found) in enumerate(zip(expected, actual, strict=True)):
        assert wanted.shape == found.shape, f"row {row}"
        worst = max(worst, float(np.abs(wanted - found).max()))
    # What is compared must depend on the source.
    assert np.std([float(values.flat[0]) for values in expected]) > 1e-2
    assert worst <= TOLERANCE
    parity_table.add_encoder(variant.name, task, worst)


def _make_sources(manifest: Manifest) -> tuple[list[list[int]], list[list[int]] | None]:
    """Ragged sources, the first as long as the model allows, and types of their tokens."""
    generator = np.random.default_rng(7)
    lengths = generator.integers(1, 40, NUM_SOURCES)
    lengths[:2] = [manifest.max_source_length, 1]
    sources = [generator.integers(0, VOCABULARY_SIZE, length).tolist() for length in lengths]
    for tokens in sources:
        tokens[int(generator.integers(len(tokens)))] = MASK_TOKEN
    record = manifest.prediction
    if record is None or not record.has_token_types:
        return sources, None
    splits = [int(generator.integers(length + 1)) for length in lengths]
    types = [
        [int(position >= split) for position in range(len(tokens))]
        for tokens, split in zip(sources, splits, strict=True)
    ]
    return sources, types


def _expect(
    folder: Path, task: Task, sources: list[list[int]], types: list[list[int]] | None
) -> list[Floats]:
    """Embeddings or logits by transformers, of each source alone."""
    load = MODEL_CLASSES[task].from_pretrained
    model = load(folder, attn_implementation="eager", dtype=torch.float32).eval()
    expected = []
    for row, tokens in enumerate(sources):
        input_ids = torch.tensor([tokens])
        feeds: dict[str, Any] = {"attention_mask": torch.ones_like(input_ids)}
        if types is not None:
            feeds["token_type_ids"] = torch.tensor([types[row]])
        with torch.inference_mode():
            outputs = model(input_ids, **feeds)
        match task:
            case Task.EMBED:
                values = outputs.last_hidden_state[0].mean(dim=0)
            case Task.FILL_MASK:
                values = outputs.logits[0, input_ids[0] == MASK_TOKEN]
            case _:
                values = outputs.logits[0]
        expected.append(values.numpy())
    return expected


def _run(
    folder: Path, manifest: Manifest, sources: list[list[int]], types: list[list[int]] | None
) -> list[Floats]:
    """The same from the graph of the served model, in one batch."""
    if manifest.embedding is not None:
        runner = SourceRunner(folder / manifest.embedding.embed_graph, VOCABULARY_SIZE - 1)
        return list(runner.run(sources)["sentence_embedding"])
    assert manifest.prediction is not None
    runner = SourceRunner(folder / manifest.prediction.graph, VOCABULARY_SIZE - 1)
    logits = runner.run(sources, types)["logits"]
    if manifest.mask_filling is not None:
        return np.split(logits, np.cumsum([row.count(MASK_TOKEN) for row in sources])[:-1])
    if manifest.token_classification is not None:
        return [rows[: len(tokens)] for rows, tokens in zip(logits, sources, strict=True)]
    return list(logits)
