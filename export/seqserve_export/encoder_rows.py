"""Texts as the rows of tokens an encoder will see in service: in pairs, or with masks."""

from collections.abc import Sequence

import numpy as np

from seqserve.task_record import Task
from seqserve_export.calibration_text import make_random_sources
from seqserve_export.source import EmbeddingSource, PredictionSource
from seqserve_export.verification import SEED, make_token_types, mask_some

EncoderSource = EmbeddingSource | PredictionSource
Row = tuple[list[int], list[int] | None]
"""Tokens of a source, and their types; None where the graph asks for none."""

_GROUP_SIZE = 4


def encode_texts(source: EncoderSource, texts: Sequence[str]) -> list[Row]:
    """A row for each text that has tokens; for reranking each text with the next."""
    if _is_reranker(source):
        return _encode(source, list(zip(texts, (*texts[1:], *texts[:1]), strict=True)))
    return _encode(source, texts)


def encode_groups(source: EncoderSource, texts: Sequence[str]) -> list[list[Row]]:
    """Rows that are compared with each other, for reranking; else a single group of all.

    Of four texts the first is the query, and all four are its documents: it is the best answer to
    itself, and the others are as far from it as texts are.
    """
    if not _is_reranker(source):
        return [_encode(source, texts)]
    return [
        _encode(source, [(texts[start], text) for text in texts[start : start + _GROUP_SIZE]])
        for start in range(0, len(texts), _GROUP_SIZE)
    ]


def make_random_groups(
    source: EncoderSource, num_rows: int, seed: int
) -> tuple[list[list[Row]], str]:
    """Rows of random tokens, for a tokenizer that reads none of the texts there are.

    Returns:
        The rows in groups as above, and their origin for the report.
    """
    sources, origin = make_random_sources(
        source.model.config.vocabulary_size, source.max_source_length, num_rows, seed
    )
    generator = np.random.default_rng(seed)
    rows: list[Row] = []
    for tokens in sources:
        types = make_token_types(generator, len(tokens)) if _has_token_types(source) else None
        mask_token = source.mask_token if isinstance(source, PredictionSource) else None
        masked = tokens if mask_token is None else mask_some(generator, tokens, mask_token)
        rows.append((masked, types))
    size = _GROUP_SIZE if _is_reranker(source) else len(rows)
    return [rows[start : start + size] for start in range(0, len(rows), size)], origin


def find_frame(source: EncoderSource) -> frozenset[int]:
    """The tokens that stand around every text and are nothing of it."""
    return frozenset(source.tokenizer.encode("").ids)


def _encode(source: EncoderSource, inputs: Sequence[str | tuple[str, str]]) -> list[Row]:
    frame, generator = find_frame(source), np.random.default_rng(SEED)
    mask_token = source.mask_token if isinstance(source, PredictionSource) else None
    rows: list[Row] = []
    for encoding in source.tokenizer.encode_batch(inputs):
        tokens = encoding.ids[: source.max_source_length]
        types = encoding.type_ids[: len(tokens)] if _has_token_types(source) else None
        if mask_token is not None:
            own = [token for token in tokens if token not in frame]
            masked = iter(mask_some(generator, own, mask_token) if own else ())
            tokens = [token if token in frame else next(masked) for token in tokens] if own else []
        if tokens:
            rows.append((tokens, types))
    return rows


def _is_reranker(source: EncoderSource) -> bool:
    return isinstance(source, PredictionSource) and source.task is Task.RERANK


def _has_token_types(source: EncoderSource) -> bool:
    return isinstance(source, PredictionSource) and source.record.has_token_types
