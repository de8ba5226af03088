"""Verifies the explain graph: weights of attention of torch and ONNX, in ragged batches.

Shapes: B rows, S source length, T target length, H heads.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqserve.session import available_cpus, open_session
from seqserve_export.explain_graph import Explainable, ExplainGraph
from seqserve_export.onnx_runner import Floats
from seqserve_export.precision import TOLERANCES, Dtype
from seqserve_export.source import GenerationSource, Source
from seqserve_export.verification import (
    SEED,
    Comparison,
    choose_effort,
    make_row,
    make_sources,
    make_token_types,
    to_floats,
    torch_reference,
)

_MAX_LENGTH = 24
_BATCH_SIZES = (1, 2, 7)


class ExplainRunner:
    """Runs an explain graph with all heads of all layers."""

    def __init__(self, path: Path, num_heads: int) -> None:
        self._session = open_session(path, num_threads=available_cpus())
        self._heads = np.arange(num_heads)

    def run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, Floats]:
        """The weights of each layer by the names of outputs, given all inputs but the heads."""
        names = [node.name for node in self._session.get_inputs()]
        heads = {name: self._heads for name in names if name not in feeds}
        outputs = [node.name for node in self._session.get_outputs()]
        return dict(zip(outputs, self._session.run(outputs, feeds | heads), strict=True))


def compare_explanations(
    source: Source, graph: Explainable, path: Path, dtype: Dtype
) -> Comparison:
    """Compares each row of ragged batches with the same row alone in torch.

    Raises:
        VerificationError: Names the tensor and the row that differ.
    """
    tolerances = TOLERANCES[dtype]
    tolerance = tolerances.graph if isinstance(source, GenerationSource) else tolerances.encoder
    comparison = Comparison(
        "attention: torch and ONNX, ragged batches", tolerance, is_of_norms=dtype != "fp32"
    )
    graph.eval()
    runner = ExplainRunner(path, graph.model.config.num_heads)
    generator = np.random.default_rng(SEED)
    with torch_reference(choose_effort(source.model)):
        for size in _BATCH_SIZES:
            rows = _make_rows(source, graph, generator, size)
            found = runner.run(_to_feeds(rows))
            for index, row in enumerate(rows):
                for name, expected in _explain_in_torch(graph, row).items():
                    # Queries and keys of padding have no meaning.
                    _, num_queries, num_keys = expected.shape
                    actual = found[name][index, :, :num_queries, :num_keys]
                    where = f"{name} of row {index} in a batch of {size}"
                    comparison.add(expected, actual, where)
    return comparison


_Row = dict[str, list[int]]
"""Tokens by the names of inputs."""


def _make_rows(
    source: Source, graph: Explainable, generator: np.random.Generator, num_rows: int
) -> list[_Row]:
    """Random rows of random lengths, as long as the model allows at most."""
    if isinstance(graph, ExplainGraph):
        config = graph.model.config
        length = min(_MAX_LENGTH, config.max_source_length)
        sources = make_sources(generator, num_rows, config.source_vocabulary_size, length)
        length = min(_MAX_LENGTH - 1, config.max_target_length)
        targets = make_sources(generator, num_rows, config.target_vocabulary_size, length)
        generator.shuffle(targets)  # so that the longest of both do not come together
        return [
            {"input_ids": tokens, "decoder_input_ids": target}
            for tokens, target in zip(sources, targets, strict=True)
        ]
    assert not isinstance(source, GenerationSource)
    length = min(_MAX_LENGTH, source.max_source_length)
    size = graph.model.config.vocabulary_size
    rows: list[_Row] = [
        {"input_ids": tokens} for tokens in make_sources(generator, num_rows, size, length)
    ]
    if graph.has_token_types:
        for row in rows:
            row["token_type_ids"] = make_token_types(generator, len(row["input_ids"]))
    return rows


def _to_feeds(rows: Sequence[_Row]) -> dict[str, NDArray[np.generic]]:
    """A batch, padded with tokens that would show if they were seen."""
    feeds: dict[str, NDArray[np.generic]] = {
        "source_lengths": np.array([len(row["input_ids"]) for row in rows], np.int32)
    }
    for name in rows[0]:
        longest = max(len(row[name]) for row in rows)
        padded = np.ones((len(rows), longest), np.int64)
        for index, row in enumerate(rows):
            padded[index, : len(row[name])] = row[name]
        feeds[name] = padded
    return feeds


def _explain_in_torch(graph: Explainable, row: _Row) -> dict[str, Floats]:
    """The weights [H, T, S] of each layer for one row alone, by the names of outputs."""
    tokens, lengths = make_row(row["input_ids"])
    others = [torch.tensor([values]) for name, values in row.items() if name != "input_ids"]
    heads = [torch.arange(graph.model.config.num_heads)] * sum(graph.layers.values())
    outputs: Sequence[Tensor] = graph(tokens, lengths, *others, *heads)
    return {
        name: to_floats(output[0])
        for name, output in zip(graph.output_names(), outputs, strict=True)
    }
