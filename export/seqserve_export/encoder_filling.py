"""Fills the folder of an encoder-only model: one graph, its weights, the tokenizer."""

import dataclasses
from pathlib import Path

from seqserve.task_record import (
    ClassificationRecord,
    EmbeddingRecord,
    MaskFillingRecord,
    RerankingRecord,
    TokenClassificationRecord,
)
from seqserve_export.calibration import calibrate_encoder
from seqserve_export.embedding_verification import EmbeddingVerifier
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.filling import SOURCE_TOKENIZER_FILE, Filling, Order
from seqserve_export.graphs import EmbedGraph
from seqserve_export.onnx_writer import write_graph
from seqserve_export.phase import Phase
from seqserve_export.pooling import Pooling
from seqserve_export.precision import copy_in_precision
from seqserve_export.prediction_graph import PredictGraph
from seqserve_export.prediction_verification import PredictionVerifier
from seqserve_export.source import EmbeddingSource, PredictionSource
from seqserve_export.verification import Verification, tokenize_samples
from seqserve_export.weight_file import WeightFile


def fill_embedding(source: EmbeddingSource, order: Order) -> Filling:
    """Writes and verifies everything but the manifest.

    Raises:
        VerificationError: Something differs that must not.
    """
    model, fp32_layers = _reduce(source, order)
    order.on_phase(Phase.EXPORT)
    source.tokenizer.save(str(order.folder / SOURCE_TOKENIZER_FILE))
    graph = EmbedGraph(model, Pooling(*source.pooling), source.projection)
    path = write_graph(graph, order.folder, "embed", WeightFile(order.folder))
    order.on_phase(Phase.VERIFY_GRAPHS)
    return Filling(
        source_vocabulary_size=source.model.config.vocabulary_size,
        max_source_length=source.max_source_length,
        verification=_add_checks(source, EmbeddingVerifier(source, path, order.dtype).verify()),
        fp32_layers=fp32_layers,
        embedding=EmbeddingRecord(
            embed_graph=path.name,
            embedding_size=source.embedding_size,
            pooling="+".join(source.pooling),
            normalize=source.is_normalized,
        ),
    )


def fill_prediction(source: PredictionSource, order: Order) -> Filling:
    """Writes and verifies everything but the manifest.

    Raises:
        VerificationError: Something differs that must not.
    """
    model, fp32_layers = _reduce(source, order)
    order.on_phase(Phase.EXPORT)
    source.tokenizer.save(str(order.folder / SOURCE_TOKENIZER_FILE))
    record = source.record
    graph = PredictGraph(
        model,
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
        fp32_layers=fp32_layers,
        classification=record if isinstance(record, ClassificationRecord) else None,
        token_classification=record if isinstance(record, TokenClassificationRecord) else None,
        reranking=record if isinstance(record, RerankingRecord) else None,
        mask_filling=record if isinstance(record, MaskFillingRecord) else None,
    )


def _reduce(
    source: EmbeddingSource | PredictionSource, order: Order
) -> tuple[EncoderModel, tuple[str, ...]]:
    """The model in the format that was asked for; heads stay in fp32."""
    if order.dtype == "fp32":
        return source.model, ()
    order.on_phase(Phase.QUANTIZE)
    texts = order.calibration_texts or source.samples
    sources = tokenize_samples(source.tokenizer, texts, source.max_source_length)
    calibration = calibrate_encoder(source.model, sources)
    model, fp32_layers = copy_in_precision(source.model, order.dtype, calibration)
    return model, tuple(fp32_layers)


def _add_checks(
    source: EmbeddingSource | PredictionSource, verification: Verification
) -> Verification:
    records = (*source.checks, *verification.records)
    return dataclasses.replace(verification, records=records)
