"""What an encoder answers to rows of tokens, in torch or by its graph.

A row's answer is its embedding [E]; or logits [N, V], one row for each decision: the text, or each
token, or each mask of the text.

Shapes: B rows of a batch, S source length, E embedding width, N decisions, V labels or vocabulary.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from seqserve_export.encoder_model import EncoderModel
from seqserve_export.encoder_rows import EncoderSource, Row
from seqserve_export.graphs import EmbedGraph
from seqserve_export.onnx_runner import Floats, SourceRunner
from seqserve_export.prediction_graph import PredictGraph
from seqserve_export.source import EmbeddingSource, PredictionSource
from seqserve_export.verification import to_floats

_BATCH_SIZE = 32


def make_graph(source: EncoderSource, model: EncoderModel) -> EmbedGraph | PredictGraph:
    """The graph of an encoder, or of a copy of it in another format, with what stands on it."""
    if isinstance(source, EmbeddingSource):
        return EmbedGraph(model, source.pooler, source.projection)
    return PredictGraph(
        model,
        source.head,
        has_token_types=source.record.has_token_types,
        mask_token=source.mask_token,
    )


def answer_in_torch(
    source: EncoderSource, model: EncoderModel, rows: Sequence[Row]
) -> Iterator[Floats]:
    """Answers of torch, one at a time.

    Neighbours of one length share a batch, so that none is padded: rows are best sorted by length.
    """
    graph = make_graph(source, model).eval()
    for _, same in itertools.groupby(rows, key=lambda row: len(row[0])):
        for batch in _divide(list(same)):
            tokens, types = _stack(batch)
            lengths = torch.tensor([len(row) for row in tokens], dtype=torch.int32)
            inputs: list[torch.Tensor] = [torch.tensor(tokens), lengths]
            if types is not None:
                inputs.append(torch.tensor(types))
            outputs = graph(*inputs)
            # Of an embed graph the first output, of others the only one.
            first = outputs[0] if isinstance(outputs, tuple) else outputs
            yield from _split(source, to_floats(first), tokens)


def answer_by_graph(source: EncoderSource, path: Path, rows: Sequence[Row]) -> Iterator[Floats]:
    """Answers of the graph in onnxruntime, one at a time, from ragged batches."""
    runner = SourceRunner(path, source.model.config.vocabulary_size - 1)
    name = "sentence_embedding" if isinstance(source, EmbeddingSource) else "logits"
    for batch in _divide(rows):
        tokens, types = _stack(batch)
        yield from _split(source, runner.run(tokens, types)[name], tokens)


def _divide(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), _BATCH_SIZE):
        yield rows[start : start + _BATCH_SIZE]


def _stack(batch: Sequence[Row]) -> tuple[list[list[int]], list[list[int]] | None]:
    """Tokens of a batch, and their types; all of its rows have types, or none has."""
    types = [row[1] for row in batch if row[1] is not None]
    return [row[0] for row in batch], types or None


def _split(source: EncoderSource, outputs: Floats, tokens: Sequence[list[int]]) -> list[Floats]:
    """The answer to each row of a batch, without those of padding."""
    if isinstance(source, EmbeddingSource):
        return list(outputs)
    return split_logits(source, outputs, tokens)


def split_logits(
    source: PredictionSource, logits: Floats, tokens: Sequence[Sequence[int]]
) -> list[Floats]:
    """Divides the logits of a batch by rows: [1, V], or [S, V] of tokens, or [N, V] of masks."""
    if source.mask_token is not None:
        ends = np.cumsum([row.count(source.mask_token) for row in tokens])
        return np.split(logits, ends[:-1])
    if source.head.config.pooling is None:
        return [rows[: len(row)] for rows, row in zip(logits, tokens, strict=True)]
    return list(logits[:, None])
