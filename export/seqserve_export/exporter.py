"""From a checkpoint folder to a served model, read, export, verify, write."""

import dataclasses
import importlib.metadata
import time
from collections.abc import Callable
from pathlib import Path

import torch

from seqserve import __version__
from seqserve.manifest import (
    ClassificationRecord,
    EmbeddingRecord,
    FileRecord,
    GenerationRecord,
    Manifest,
    MaskFillingRecord,
    Provenance,
    RerankingRecord,
    Task,
    TokenClassificationRecord,
    make_file_record,
    write_manifest,
)
from seqserve_export.embedding_verification import EmbeddingVerifier
from seqserve_export.generation_verification import GenerationVerifier
from seqserve_export.graphs import DecodeGraph, EmbedGraph, EncodeGraph
from seqserve_export.model_folder import building, check_absent, check_name, check_version, to_name
from seqserve_export.onnx_writer import write_graph
from seqserve_export.pooling import Pooling, PoolingMode
from seqserve_export.prediction_graph import PredictGraph
from seqserve_export.prediction_verification import PredictionVerifier
from seqserve_export.source import EmbeddingSource, GenerationSource, PredictionSource, Source
from seqserve_export.source_folder import read_source_folder
from seqserve_export.verification import Verification
from seqserve_export.weight_file import WeightFile

SOURCE_TOKENIZER_FILE = "tokenizer.json"
TARGET_TOKENIZER_FILE = "target_tokenizer.json"

OnPhase = Callable[[str], None]
"""Told the name of each phase as it begins."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What an export made."""

    folder: Path
    manifest: Manifest
    num_parameters: int
    seconds: float
    notes: tuple[str, ...] = ()
    """What was decided for want of a statement in the checkpoint."""


def export_model(
    source_folder: Path,
    store: Path,
    *,
    name: str | None = None,
    version: str = "1",
    is_replacing: bool = False,
    is_pickle_allowed: bool = False,
    pooling: PoolingMode | None = None,
    on_phase: OnPhase = lambda phase: None,
) -> Report:
    """Exports a checkpoint and verifies the graphs; only then the store is changed.

    Args:
        source_folder: The checkpoint, see :mod:`seqserve_export.source_folder`.
        store: Where served models are; made if absent.
        name: The model's name; None means the checkpoint's.
        version: A number from 1 up.
        is_replacing: Whether an existing version is replaced or refused.
        is_pickle_allowed: Whether weights may come from a pickle.
        pooling: How an encoder is pooled whose folder does not say it; None means the mean.
        on_phase: Told the name of each phase.

    Raises:
        ExportError: The checkpoint cannot be read or served, torch and ONNX disagree, or the
            version exists.
    """
    started = time.monotonic()
    check_version(version)
    on_phase("reading the checkpoint")
    source = read_source_folder(source_folder, is_pickle_allowed=is_pickle_allowed, pooling=pooling)
    model_name = to_name(source.name) if name is None else name
    check_name(model_name)
    folder = store / model_name / version
    if not is_replacing:
        check_absent(folder)
    provenance = _make_provenance(source_folder)
    with building(folder, is_replacing=is_replacing) as new:
        manifest = _fill(new, source, model_name, version, provenance, on_phase)
        on_phase("writing the folder")
        write_manifest(manifest, new)
    return Report(
        folder=folder,
        manifest=manifest,
        num_parameters=_count_parameters(source),
        seconds=time.monotonic() - started,
        notes=() if isinstance(source, GenerationSource) else source.notes,
    )


def _count_parameters(source: Source) -> int:
    modules: list[torch.nn.Module] = [source.model]
    if isinstance(source, PredictionSource):
        modules.append(source.head)
    elif isinstance(source, EmbeddingSource):
        modules.append(source.projection)
    # As a set: an output layer may share the weight of the embedding.
    return sum(weight.numel() for weight in {w for m in modules for w in m.parameters()})


def _fill(
    folder: Path,
    source: Source,
    name: str,
    version: str,
    provenance: Provenance,
    on_phase: OnPhase,
) -> Manifest:
    """Writes graphs and tokenizers, verifies them, and returns the manifest for them."""
    match source:
        case GenerationSource():
            verification = _fill_generation(folder, source, on_phase)
            config = source.model.config
            task = Task.GENERATE
            source_vocabulary_size = config.source_vocabulary_size
            max_source_length = config.max_source_length
        case EmbeddingSource():
            verification = _fill_embedding(folder, source, on_phase)
            task = Task.EMBED
            source_vocabulary_size = source.model.config.vocabulary_size
            max_source_length = source.max_source_length
        case PredictionSource():
            verification = _fill_prediction(folder, source, on_phase)
            task = source.task
            source_vocabulary_size = source.model.config.vocabulary_size
            max_source_length = source.max_source_length
    record = source.record if isinstance(source, PredictionSource) else None
    return Manifest(
        manifest_version=1,
        name=name,
        version=version,
        tasks=(task,),
        family=source.family,
        dtype="fp32",
        source_tokenizer=SOURCE_TOKENIZER_FILE,
        source_vocabulary_size=source_vocabulary_size,
        max_source_length=max_source_length,
        generation=_make_generation(source) if isinstance(source, GenerationSource) else None,
        embedding=_make_embedding(source) if isinstance(source, EmbeddingSource) else None,
        classification=record if isinstance(record, ClassificationRecord) else None,
        token_classification=record if isinstance(record, TokenClassificationRecord) else None,
        reranking=record if isinstance(record, RerankingRecord) else None,
        mask_filling=record if isinstance(record, MaskFillingRecord) else None,
        is_batch_invariant=verification.is_batch_invariant,
        verification=verification.records,
        provenance=provenance,
        files=_measure_files(folder),
    )


def _fill_generation(folder: Path, source: GenerationSource, on_phase: OnPhase) -> Verification:
    source.source_tokenizer.save(str(folder / SOURCE_TOKENIZER_FILE))
    if source.target_tokenizer is not None:
        source.target_tokenizer.save(str(folder / TARGET_TOKENIZER_FILE))
    weights = WeightFile(folder)
    on_phase("exporting the encode graph")
    encode_path = write_graph(EncodeGraph(source.model), folder, "encode", weights)
    on_phase("exporting the decode graph")
    decode_path = write_graph(DecodeGraph(source.model), folder, "decode", weights)
    on_phase("verifying")
    return GenerationVerifier(source, encode_path, decode_path).verify()


def _fill_embedding(folder: Path, source: EmbeddingSource, on_phase: OnPhase) -> Verification:
    source.tokenizer.save(str(folder / SOURCE_TOKENIZER_FILE))
    on_phase("exporting the embed graph")
    graph = EmbedGraph(source.model, Pooling(*source.pooling), source.projection)
    path = write_graph(graph, folder, "embed", WeightFile(folder))
    on_phase("verifying")
    return _with_reference(source, EmbeddingVerifier(source, path).verify())


def _fill_prediction(folder: Path, source: PredictionSource, on_phase: OnPhase) -> Verification:
    source.tokenizer.save(str(folder / SOURCE_TOKENIZER_FILE))
    on_phase("exporting the predict graph")
    graph = PredictGraph(
        source.model,
        source.head,
        has_token_types=source.record.has_token_types,
        mask_token=source.mask_token,
    )
    path = write_graph(graph, folder, Path(source.record.graph).stem, WeightFile(folder))
    on_phase("verifying")
    return _with_reference(source, PredictionVerifier(source, path).verify())


def _with_reference(
    source: EmbeddingSource | PredictionSource, verification: Verification
) -> Verification:
    records = (source.reference, *verification.records)
    return dataclasses.replace(verification, records=records)


def _make_generation(source: GenerationSource) -> GenerationRecord:
    config, generation = source.model.config, source.generation
    has_own_target = source.target_tokenizer is not None
    return GenerationRecord(
        encode_graph="encode.onnx",
        decode_graph="decode.onnx",
        target_tokenizer=TARGET_TOKENIZER_FILE if has_own_target else SOURCE_TOKENIZER_FILE,
        target_vocabulary_size=config.target_vocabulary_size,
        # Every fed token needs a position, and the last new token is never fed: as many new tokens
        # as positions, the start token's included.
        max_target_length=config.max_target_length,
        num_layers=config.num_decoder_layers,
        num_heads=config.num_heads,
        head_size=config.head_size,
        decoder_start_token_id=generation.decoder_start_token_id,
        eos_token_id=generation.eos_token_id,
        pad_token_id=generation.pad_token_id,
        max_new_tokens=generation.max_new_tokens,
        num_beams=generation.num_beams,
        length_penalty=generation.length_penalty,
        early_stopping=generation.early_stopping,
        min_new_tokens=generation.min_new_tokens,
        no_repeat_ngram_size=generation.no_repeat_ngram_size,
        repetition_penalty=generation.repetition_penalty,
        forced_bos_token_id=generation.forced_bos_token_id,
        forced_eos_token_id=generation.forced_eos_token_id,
        suppressed_tokens=generation.suppressed_tokens,
        languages=source.languages,
    )


def _make_embedding(source: EmbeddingSource) -> EmbeddingRecord:
    return EmbeddingRecord(
        embed_graph="embed.onnx",
        embedding_size=source.embedding_size,
        pooling="+".join(source.pooling),
        normalize=source.is_normalized,
    )


def _make_provenance(source_folder: Path) -> Provenance:
    return Provenance(
        source=source_folder.resolve().name,
        exporter=f"seqserve-export {__version__}",
        libraries={
            "torch": torch.__version__,
            **{name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime")},
        },
    )


def _measure_files(folder: Path) -> dict[str, FileRecord]:
    return {path.name: make_file_record(path) for path in sorted(folder.iterdir())}
