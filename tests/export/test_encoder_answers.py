"""Answers of torch and of the graph: the same rows in the same order, whatever shares a batch."""

from pathlib import Path

import numpy as np
import pytest

from seqserve.task_record import Task
from seqserve_export.encoder_answers import answer_by_graph, answer_in_torch, make_graph
from seqserve_export.encoder_folder import read_encoder_folder
from seqserve_export.encoder_rows import make_random_groups
from seqserve_export.onnx_writer import write_graph
from seqserve_export.verification import torch_reference
from seqserve_export.weight_file import WeightFile
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder

NUM_ROWS = 70


@pytest.mark.parametrize(
    "task", [Task.EMBED, Task.CLASSIFY, Task.CLASSIFY_TOKENS, Task.RERANK, Task.FILL_MASK]
)
def test_torch_and_graph_answer_alike(task: Task, tmp_path: Path) -> None:
    """One answer a row, each as if the row were alone."""
    make_tiny_encoder_folder(tmp_path / "source", find_variant("bert"), task)
    source = read_encoder_folder(tmp_path / "source", is_pickle_allowed=False)
    graph = make_graph(source, source.model)
    path = write_graph(graph, tmp_path, "graph", WeightFile(tmp_path))
    groups, _ = make_random_groups(source, NUM_ROWS, 1)
    rows = [row for group in groups for row in group]
    rows = sorted(rows, key=lambda row: len(row[0]))
    with torch_reference():
        together = list(answer_in_torch(source, source.model, rows))
        alone = [next(answer_in_torch(source, source.model, [row])) for row in rows]
    by_graph = list(answer_by_graph(source, path, rows))
    assert len(together) == len(by_graph) == NUM_ROWS
    for first, second, third, (tokens, _) in zip(together, alone, by_graph, rows, strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-4)
        np.testing.assert_allclose(third, second, rtol=0, atol=1e-4)
        num_decisions = {
            Task.EMBED: 32,
            Task.CLASSIFY_TOKENS: len(tokens),
            Task.FILL_MASK: tokens.count(4),
        }
        assert len(first) == num_decisions.get(task, 1)
