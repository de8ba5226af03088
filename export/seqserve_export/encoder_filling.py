"""Fills the folder of an encoder-only model: one graph, its weights, the tokenizer."""

import dataclasses
from pathlib import Path

from seqserve.explanation_record import ExplanationRecord
from seqserve.manifest import QualityRecord, VerificationRecord
from seqserve.task_record import (
    ClassificationRecord,
    EmbeddingRecord,
    MaskFillingRecord,
    RerankingRecord,
    TokenClassificationRecord,
)
from seqserve_export.calibration import calibrate_encoder
from seqserve_export.calibration_text import choose_texts, make_random_sources
from seqserve_export.embedding_verification import EmbeddingVerifier
from seqserve_export.encoder_answers import answer_by_graph, make_graph
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.encoder_rows import EncoderSource, Row, encode_texts
from seqserve_export.explain_graph import EncoderExplainGraph
from seqserve_export.explanation_filling import fill_explanation
from seqserve_export.filling import SOURCE_TOKENIZER_FILE, Filling, Order
from seqserve_export.held_out_text import split_given
from seqserve_export.onnx_writer import write_graph
from seqserve_export.phase import Phase
from seqserve_export.precision import Reduction, copy_in_precision
from seqserve_export.prediction_verification import PredictionVerifier
from seqserve_export.quality_gate import QualityGate
from seqserve_export.source import EmbeddingSource, PredictionSource
from seqserve_export.verification import Verification
from seqserve_export.weight_file import WEIGHTS_FILE, WeightFile

_EMBED_GRAPH = "embed.onnx"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Writing:
    """The graph that was written."""

    path: Path
    reduction: Reduction[EncoderModel]
    """What it is the graph of."""
    quality: QualityRecord | None = None
    calibrated_on: str | None = None
    weights: WeightFile
    """Those that the graph uses."""


def fill_embedding(source: EmbeddingSource, order: Order) -> Filling:
    """Writes and verifies everything but the manifest.

    Raises:
        VerificationError: Something differs that must not.
    """
    writing = _write(source, order, _EMBED_GRAPH)
    order.on_phase(Phase.VERIFY_GRAPHS)
    model = writing.reduction.model
    verifier = EmbeddingVerifier(source, writing.path, model=model, dtype=order.dtype)
    return _describe(
        source,
        order,
        writing,
        verifier.verify(),
        embedding=EmbeddingRecord(
            embed_graph=writing.path.name,
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
    record = source.record
    writing = _write(source, order, record.graph)
    order.on_phase(Phase.VERIFY_GRAPHS)
    model = writing.reduction.model
    verifier = PredictionVerifier(source, writing.path, model=model, dtype=order.dtype)
    return dataclasses.replace(
        _describe(source, order, writing, verifier.verify()),
        classification=record if isinstance(record, ClassificationRecord) else None,
        token_classification=record if isinstance(record, TokenClassificationRecord) else None,
        reranking=record if isinstance(record, RerankingRecord) else None,
        mask_filling=record if isinstance(record, MaskFillingRecord) else None,
    )


def _write(source: EncoderSource, order: Order, name: str) -> _Writing:
    """Writes tokenizer and graph, in the format that was asked for. Heads stay in fp32."""
    source.tokenizer.save(str(order.folder / SOURCE_TOKENIZER_FILE))

    weights = WeightFile(order.folder)

    def write(model: EncoderModel) -> Path:
        nonlocal weights
        # Not to keep the weights of a graph that was written before.
        (order.folder / WEIGHTS_FILE).unlink(missing_ok=True)
        weights = WeightFile(order.folder)
        return write_graph(make_graph(source, model), order.folder, Path(name).stem, weights)

    if order.dtype == "fp32":
        order.on_phase(Phase.EXPORT)
        path, reduction = write(source.model), Reduction(model=source.model)
        return _Writing(path=path, reduction=reduction, weights=weights)
    order.on_phase(Phase.QUANTIZE)
    chosen = choose_texts(order.calibration_texts, source.samples, source.tokenizer)
    chosen, others = split_given(order.calibration_texts, chosen)
    rows, origin = encode_texts(source, chosen.texts), chosen.origin
    if not rows:
        rows, origin = _make_random_rows(source)
    calibration = calibrate_encoder(source.model, rows)
    reduction = copy_in_precision(source.model, order.dtype, calibration)
    gate = QualityGate(source, others, chosen.texts)
    order.on_phase(Phase.EXPORT)
    judgement = gate.judge(
        reduction, calibration, lambda model: answer_by_graph(source, write(model), gate.rows)
    )
    return _Writing(
        path=order.folder / name,
        reduction=judgement.reduction,
        quality=judgement.record,
        calibrated_on=origin,
        weights=weights,
    )


def _make_random_rows(source: EncoderSource) -> tuple[list[Row], str]:
    sources, origin = make_random_sources(
        source.model.config.vocabulary_size, source.max_source_length
    )
    return [(tokens, None) for tokens in sources], origin


def _describe(
    source: EncoderSource,
    order: Order,
    writing: _Writing,
    verification: Verification,
    embedding: EmbeddingRecord | None = None,
) -> Filling:
    records = [*source.checks, *verification.records]
    explanation = None
    if order.is_explained:
        explanation, check = _explain(source, order, writing)
        records.append(check)
    return Filling(
        source_vocabulary_size=source.model.config.vocabulary_size,
        max_source_length=source.max_source_length,
        verification=dataclasses.replace(verification, records=tuple(records)),
        fp32_layers=writing.reduction.fp32_layers,
        layers=writing.reduction.layers,
        quality=writing.quality,
        calibrated_on=writing.calibrated_on,
        embedding=embedding,
        explanation=explanation,
    )


def _explain(
    source: EncoderSource, order: Order, writing: _Writing
) -> tuple[ExplanationRecord, VerificationRecord]:
    """Adds the graph that tells of the attention of what is served."""
    has_token_types = isinstance(source, PredictionSource) and source.record.has_token_types
    graph = EncoderExplainGraph(writing.reduction.model, has_token_types=has_token_types)
    return fill_explanation(source, graph, order, writing.weights)
