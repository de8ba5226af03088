"""Fills the folder of an encoder-only model: one graph, its weights, the tokenizer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seqserve.task_record import (
    ClassificationRecord,
    EmbeddingRecord,
    MaskFillingRecord,
    RerankingRecord,
    Task,
    TokenClassificationRecord,
)
from seqserve_export.calibration import calibrate_encoder
from seqserve_export.calibration_text import choose_texts, make_random_sources
from seqserve_export.embedding_verification import EmbeddingVerifier
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.filling import SOURCE_TOKENIZER_FILE, Filling, Order
from seqserve_export.graphs import EmbedGraph
from seqserve_export.onnx_writer import write_graph
from seqserve_export.phase import Phase
from seqserve_export.precision import Reduction, copy_in_precision
from seqserve_export.prediction_graph import PredictGraph
from seqserve_export.prediction_verification import PredictionVerifier
from seqserve_export.source import EmbeddingSource, PredictionSource
from seqserve_export.verification import SEED, Verification, mask_some
from seqserve_export.weight_file import WeightFile


def fill_embedding(source: EmbeddingSource, order: Order) -> Filling:
    """Writes and verifies everything but the manifest.

    Raises:
        VerificationError: Something differs that must not.
    """
    reduction, calibrated_on = _reduce(source, order)
    order.on_phase(Phase.EXPORT)
    source.tokenizer.save(str(order.folder / SOURCE_TOKENIZER_FILE))
    graph = EmbedGraph(reduction.model, source.pooler, source.projection)
    path = write_graph(graph, order.folder, "embed", WeightFile(order.folder))
    order.on_phase(Phase.VERIFY_GRAPHS)
    return Filling(
        source_vocabulary_size=source.model.config.vocabulary_size,
        max_source_length=source.max_source_length,
        verification=_add_checks(source, EmbeddingVerifier(source, path, order.dtype).verify()),
        fp32_layers=reduction.fp32_layers,
        layers=reduction.layers,
        calibrated_on=calibrated_on,
        embedding=EmbeddingRecord(
            embed_graph=path.name,
            embedding_size=source.embedding_size,
            pooling=source.pooling_name,
            normalize=source.is_normalized,
            token_embedding_size=source.model.config.model_size,
            prompts=source.prompts.texts,
            default_prompt_name=source.prompts.default,
            sparse=source.sparse_record,
        ),
    )


def fill_prediction(source: PredictionSource, order: Order) -> Filling:
    """Writes and verifies everything but the manifest.

    Raises:
        VerificationError: Something differs that must not.
    """
    reduction, calibrated_on = _reduce(source, order)
    order.on_phase(Phase.EXPORT)
    source.tokenizer.save(str(order.folder / SOURCE_TOKENIZER_FILE))
    record = source.record
    graph = PredictGraph(
        reduction.model,
        source.head,
        has_token_types=record.has_token_types,
        mask_token=source.mask_token,
    )
    path = write_graph(graph, order.folder, Path(record.graph).stem, WeightFile(order.folder))
    order.on_phase(Phase.VERIFY_GRAPHS)
    return Filling(
        source_vocabulary_size=source.model.config.vocabulary_size,
        max_source_length=source.max_source_length,
        verification=_add_checks(source, PredictionVerifier(source, path, order.dtype).verify()),
        fp32_layers=reduction.fp32_layers,
        layers=reduction.layers,
        calibrated_on=calibrated_on,
        classification=record if isinstance(record, ClassificationRecord) else None,
        token_classification=record if isinstance(record, TokenClassificationRecord) else None,
        reranking=record if isinstance(record, RerankingRecord) else None,
        mask_filling=record if isinstance(record, MaskFillingRecord) else None,
    )


def _reduce(
    source: EmbeddingSource | PredictionSource, order: Order
) -> tuple[Reduction[EncoderModel], str | None]:
    """The model in the format that was asked for, and what that was chosen on.

    Heads stay in fp32.
    """
    if order.dtype == "fp32":
        return Reduction(model=source.model), None
    order.on_phase(Phase.QUANTIZE)
    chosen = choose_texts(order.calibration_texts, source.samples, source.tokenizer)
    sources, origin = encode_texts(source, chosen.texts), chosen.origin
    if not sources:
        rows, origin = make_random_sources(
            source.model.config.vocabulary_size, source.max_source_length
        )
        sources = [(tokens, None) for tokens in rows]
    calibration = calibrate_encoder(source.model, sources)
    return copy_in_precision(source.model, order.dtype, calibration), origin


def encode_texts(
    source: EmbeddingSource | PredictionSource, texts: Sequence[str]
) -> list[tuple[list[int], list[int] | None]]:
    """Tokens and their types, as the model will see them: in pairs, or with masks."""
    inputs: Sequence[str | tuple[str, str]] = texts
    mask_token, has_types = None, False
    if isinstance(source, PredictionSource):
        mask_token, has_types = source.mask_token, source.record.has_token_types
        if source.task is Task.RERANK:
            inputs = list(zip(texts, (*texts[1:], *texts[:1]), strict=True))
    generator = np.random.default_rng(SEED)
    sources: list[tuple[list[int], list[int] | None]] = []
    for encoding in source.tokenizer.encode_batch(inputs):
        tokens = encoding.ids[: source.max_source_length]
        if tokens and mask_token is not None:
            tokens = mask_some(generator, tokens, mask_token)
        if tokens:
            sources.append((tokens, encoding.type_ids[: len(tokens)] if has_types else None))
    return sources


def _add_checks(
    source: EmbeddingSource | PredictionSource, verification: Verification
) -> Verification:
    records = (*source.checks, *verification.records)
    return dataclasses.replace(verification, records=records)
