"""From a checkpoint folder to a served model, read, export, verify, write."""

import dataclasses
import importlib.metadata
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from seqserve import __version__
from seqserve.manifest import FileRecord, Manifest, Provenance, make_file_record, write_manifest
from seqserve.task_record import Task
from seqserve_export.encoder_filling import fill_embedding, fill_prediction
from seqserve_export.filling import SOURCE_TOKENIZER_FILE, Filling, Order
from seqserve_export.generation_filling import fill_generation
from seqserve_export.model_folder import building, check_absent, check_name, check_version, to_name
from seqserve_export.phase import OnPhase, Phase
from seqserve_export.pooling import PoolingChoice
from seqserve_export.precision import Dtype
from seqserve_export.source import EmbeddingSource, GenerationSource, PredictionSource, Source
from seqserve_export.source_folder import read_source_folder
from seqserve_export.weights import measure_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What an export would make of a checkpoint."""

    folder: Path
    """Where the model goes."""
    name: str
    version: str
    task: Task
    family: str
    dtype: Dtype
    num_parameters: int
    source_bytes: int
    """Size of the checkpoint's weights."""
    notes: tuple[str, ...]
    """What was decided for want of a statement in the checkpoint."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What an export made."""

    plan: Plan
    manifest: Manifest
    seconds: float
    fp32_layers: tuple[str, ...] = ()
    """Linear layers that stay in fp32 though another format was asked for."""
    calibrated_on: str | None = None
    """What the format was chosen on; None in fp32."""

    @property
    def folder(self) -> Path:
        """Where the model is."""
        return self.plan.folder


def plan_export(
    source_folder: Path,
    store: Path,
    *,
    name: str | None = None,
    version: str = "1",
    dtype: Dtype = "fp32",
    is_replacing: bool = False,
    is_pickle_allowed: bool = False,
    pooling: PoolingChoice | None = None,
) -> tuple[Source, Plan]:
    """Reads and maps a checkpoint, and writes nothing.

    Args:
        source_folder: The checkpoint, see :mod:`seqserve_export.source_folder`.
        store: Where served models are.
        name: The model's name; None means the checkpoint's.
        version: A number from 1 up.
        dtype: The number format to serve in.
        is_replacing: Whether an existing version would be replaced or refused.
        is_pickle_allowed: Whether weights may come from a pickle.
        pooling: How an encoder is pooled whose folder does not say it; None means the mean. A
            sparse way makes an embedder of a masked language model.

    Raises:
        ExportError: The checkpoint cannot be read or served, or the version exists.
    """
    check_version(version)
    if name is not None:
        check_name(name)
        _check_free(store / name / version, is_replacing=is_replacing)
    source = read_source_folder(source_folder, is_pickle_allowed=is_pickle_allowed, pooling=pooling)
    model_name = to_name(source.name) if name is None else name
    folder = store / model_name / version
    _check_free(folder, is_replacing=is_replacing)
    plan = Plan(
        folder=folder,
        name=model_name,
        version=version,
        task=_find_task(source),
        family=source.family,
        dtype=dtype,
        num_parameters=_count_parameters(source),
        source_bytes=measure_weights(source_folder),
        notes=source.notes,
    )
    return source, plan


def export_model(
    source_folder: Path,
    store: Path,
    *,
    name: str | None = None,
    version: str = "1",
    dtype: Dtype = "fp32",
    calibration_texts: Sequence[str] = (),
    is_replacing: bool = False,
    is_pickle_allowed: bool = False,
    pooling: PoolingChoice | None = None,
    is_explained: bool = False,
    on_phase: OnPhase = lambda phase: None,
) -> Report:
    """Exports a checkpoint and verifies the graphs; only then the store is changed.

    Args:
        source_folder: The checkpoint.
        store: Where served models are; made if absent.
        name: As in :func:`plan_export`, and so are those without a word here.
        version: A number from 1 up.
        dtype: The number format to serve in.
        calibration_texts: Texts to choose number ranges on; if empty, the checkpoint's samples or
            else built-in sentences.
        is_replacing: Whether an existing version is replaced or refused.
        is_pickle_allowed: Whether weights may come from a pickle.
        pooling: How an encoder is pooled whose folder does not say it.
        is_explained: Whether there is a graph that tells of the attention; to trace it takes about
            as long as the others.
        on_phase: Told each phase.

    Raises:
        ExportError: The checkpoint cannot be read or served, torch and ONNX disagree, or the
            version exists.
    """
    started = time.monotonic()
    on_phase(Phase.READ)
    source, plan = plan_export(
        source_folder,
        store,
        name=name,
        version=version,
        dtype=dtype,
        is_replacing=is_replacing,
        is_pickle_allowed=is_pickle_allowed,
        pooling=pooling,
    )
    provenance = _make_provenance(source_folder)
    with building(plan.folder, is_replacing=is_replacing) as new:
        order = Order(
            folder=new,
            dtype=dtype,
            calibration_texts=tuple(calibration_texts),
            on_phase=on_phase,
            is_explained=is_explained,
        )
        filling = _fill(source, order)
        on_phase(Phase.WRITE)
        manifest = _make_manifest(plan, filling, provenance, _measure_files(new))
        write_manifest(manifest, new)
    return Report(
        plan=plan,
        manifest=manifest,
        seconds=time.monotonic() - started,
        fp32_layers=filling.fp32_layers,
        calibrated_on=filling.calibrated_on,
    )


def _check_free(folder: Path, *, is_replacing: bool) -> None:
    if not is_replacing:
        check_absent(folder)


def _find_task(source: Source) -> Task:
    match source:
        case GenerationSource():
            return Task.GENERATE
        case EmbeddingSource():
            return Task.EMBED
        case PredictionSource():
            return source.task


def _count_parameters(source: Source) -> int:
    modules: list[torch.nn.Module] = [source.model]
    if isinstance(source, PredictionSource):
        modules.append(source.head)
    elif isinstance(source, EmbeddingSource):
        modules += [source.pooler, source.projection]
    # As a set: an output layer may share the weight of the embedding.
    return sum(weight.numel() for weight in {w for m in modules for w in m.parameters()})


def _fill(source: Source, order: Order) -> Filling:
    """Writes graphs and tokenizers, and verifies them."""
    match source:
        case GenerationSource():
            return fill_generation(source, order)
        case EmbeddingSource():
            return fill_embedding(source, order)
        case PredictionSource():
            return fill_prediction(source, order)


def _make_manifest(
    plan: Plan, filling: Filling, provenance: Provenance, files: dict[str, FileRecord]
) -> Manifest:
    return Manifest(
        manifest_version=1,
        name=plan.name,
        version=plan.version,
        tasks=(plan.task,),
        family=plan.family,
        dtype=plan.dtype,
        source_tokenizer=SOURCE_TOKENIZER_FILE,
        source_vocabulary_size=filling.source_vocabulary_size,
        max_source_length=filling.max_source_length,
        generation=filling.generation,
        embedding=filling.embedding,
        classification=filling.classification,
        token_classification=filling.token_classification,
        reranking=filling.reranking,
        mask_filling=filling.mask_filling,
        explanation=filling.explanation,
        is_batch_invariant=filling.verification.is_batch_invariant,
        verification=filling.verification.records,
        greedy_agreement=filling.verification.greedy_agreement,
        layers=filling.layers,
        quality=filling.quality,
        provenance=provenance,
        files=files,
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
