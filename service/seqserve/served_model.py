"""One model with everything that serves it, opened from its folder."""

import dataclasses
import time
from pathlib import Path

import structlog

from seqserve.admission import Admission
from seqserve.cache_budget import CacheBudget, CacheExtent
from seqserve.config import ServerConfig
from seqserve.device import check_format
from seqserve.device_check import check_results
from seqserve.device_engine import DeviceEngine
from seqserve.engine import EmbeddingEngine, Engine, GenerationEngine, PredictionEngine
from seqserve.errors import ModelFolderError
from seqserve.generation_graphs import open_device_graphs, open_generation_graphs
from seqserve.graph_file import check_external_data
from seqserve.intake import SchedulerLimits
from seqserve.lanes import Lanes
from seqserve.manifest import Manifest, read_manifest
from seqserve.memory import available_memory
from seqserve.metrics import Metrics
from seqserve.model_metrics import ModelMetrics
from seqserve.rehearsal import rehearse
from seqserve.session import available_cpus
from seqserve.shared_sessions import SharedSessions
from seqserve.task_record import EmbeddingRecord
from seqserve.tokenizer import Tokenizer
from seqserve.worker import Worker

_log = structlog.get_logger(__name__)

_MAX_LANES = 4
"""Chosen by default: more would leave each with few rows, unless the load is heavy."""
_DEVICE_CACHE_BYTES = 2 * 1024**3
"""What caches on a device have by default: how much memory it has, onnxruntime does not tell."""


@dataclasses.dataclass(frozen=True, slots=True)
class ServedModel:
    """One model with everything that serves it."""

    manifest: Manifest
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    lanes: Lanes
    admission: Admission
    metrics: ModelMetrics
    budget: CacheBudget | None
    """Of the cache; None for models without one."""
    is_batch_invariant: bool
    """Whether export found results not to depend on the batch; it has not looked at devices."""

    @property
    def label(self) -> str:
        """``name/version``, for messages."""
        return f"{self.manifest.name}/{self.manifest.version}"


def open_model(
    folder: Path,
    config: ServerConfig,
    metrics: Metrics,
    *,
    num_models: int = 1,
    is_rehearsed: bool = False,
) -> ServedModel:
    """Reads, checks and opens a model folder; the worker is not started.

    Args:
        folder: The model.
        config: The settings.
        metrics: Where it records.
        num_models: Models that share the memory, this one included.
        is_rehearsed: Whether each lane runs a small input first.

    Raises:
        ModelFolderError: The folder cannot be served.
        ConfigurationError: It cannot be served on the device that is set.
    """
    began_at = time.monotonic()
    manifest = read_manifest(folder)
    if (manifest.name, manifest.version) != (folder.parent.name, folder.name):
        raise ModelFolderError(
            f"{folder} holds {manifest.name}/{manifest.version}; a model folder is "
            "STORE/NAME/VERSION"
        )
    _check_links(folder, manifest)
    check_external_data(folder, manifest)
    check_format(manifest, config.device)
    source_tokenizer = Tokenizer(folder / manifest.source_tokenizer)
    _check_vocabulary(folder, source_tokenizer, manifest.source_vocabulary_size)
    target_tokenizer = source_tokenizer
    model_metrics = ModelMetrics(metrics, manifest.name, manifest.version)
    num_threads = config.threads or available_cpus()
    check_results(folder, manifest, num_threads=num_threads, device=config.device)
    engines: list[Engine]
    budget: CacheBudget | None = None
    if manifest.generation is not None:
        _check_beams(folder, manifest.generation.num_beams, config.max_num_beams)
        target_tokenizer = Tokenizer(folder / manifest.generation.target_tokenizer)
        _check_vocabulary(folder, target_tokenizer, manifest.generation.target_vocabulary_size)
        generation: list[GenerationEngine] | list[DeviceEngine]
        generation = _open_generation_engines(folder, manifest, config, num_threads)
        engines = list(generation)
        budget = _make_budget(generation, manifest, config, num_models)
        model_metrics.set_cache_budget(budget.max_bytes * len(engines))
        model_metrics.set_max_rows(config.max_batch_size * len(engines))
    else:
        engines = _open_encoder_engines(folder, manifest, config, num_threads, num_models)
    name = f"{manifest.name}/{manifest.version}"
    is_batch_invariant = manifest.is_batch_invariant and config.device == "cpu"
    if not is_batch_invariant:
        reason = "as the export found" if config.device == "cpu" else f"on {config.device}"
        _log.warning(f"last bits of results may depend on the batch, {reason}", model=name)
    limits = SchedulerLimits(
        config.max_batch_size,
        config.max_batch_tokens,
        config.max_stall_tokens,
        config.priority_ageing_seconds,
        # The steps of a device hardly take longer with more rows.
        preferred_batch_size=config.preferred_batch_size if config.device == "cpu" else None,
    )
    if is_rehearsed:
        for engine in engines:
            rehearse(engine, folder, manifest, limits, budget)
    model_metrics.set_load_duration(time.monotonic() - began_at)
    return ServedModel(
        manifest=manifest,
        source_tokenizer=source_tokenizer,
        target_tokenizer=target_tokenizer,
        lanes=Lanes(
            [
                Worker(
                    engine,
                    limits,
                    model_metrics,
                    name=name,
                    lane=lane,
                    budget=budget,
                    max_failed_steps=config.max_failed_steps,
                )
                for lane, engine in enumerate(engines)
            ]
        ),
        admission=Admission(config.max_outstanding),
        metrics=model_metrics,
        budget=budget,
        is_batch_invariant=is_batch_invariant,
    )


def _open_generation_engines(
    folder: Path, manifest: Manifest, config: ServerConfig, num_threads: int
) -> list[GenerationEngine] | list[DeviceEngine]:
    """One engine for each lane; on a device there is one."""
    if config.device != "cpu":
        graphs = open_generation_graphs(
            folder, manifest, num_threads=num_threads, device=config.device
        )
        device_graphs = open_device_graphs(
            folder, manifest, num_threads=num_threads, device=config.device
        )
        return [DeviceEngine(graphs, device_graphs, manifest, max_rows=config.max_batch_size)]
    num_lanes = _count_lanes(config, num_threads)
    threads_per_lane = max(1, num_threads // num_lanes)
    graphs = open_generation_graphs(folder, manifest, num_threads=threads_per_lane)
    engines: list[GenerationEngine] = []
    for _ in range(num_lanes):
        if engines and threads_per_lane > 1:
            # Runs of one session share its threads and would wait for each other.
            graphs = open_generation_graphs(folder, manifest, num_threads=threads_per_lane)
        engines.append(GenerationEngine(graphs, manifest, max_rows=config.max_batch_size))
    return engines


def _open_encoder_engines(
    folder: Path, manifest: Manifest, config: ServerConfig, num_threads: int, num_models: int
) -> list[Engine]:
    """One engine for each lane; on a device there is one."""
    num_lanes = _count_lanes(config, num_threads) if config.device == "cpu" else 1
    record = manifest.embedding or manifest.prediction
    assert record is not None
    graph = record.embed_graph if isinstance(record, EmbeddingRecord) else record.graph
    num_bytes = sum(file.size_bytes for file in manifest.files.values())
    sessions = SharedSessions(
        folder / graph,
        num_threads=num_threads,
        num_lanes=num_lanes,
        # Not where memory is short.
        is_wide=num_bytes * (num_lanes + 1) * num_models <= available_memory() // 4,
        device=config.device,
    )
    if manifest.embedding is not None:
        return [EmbeddingEngine(sessions, manifest, lane) for lane in range(num_lanes)]
    return [PredictionEngine(sessions, manifest, lane) for lane in range(num_lanes)]


def _count_lanes(config: ServerConfig, num_threads: int) -> int:
    return config.lanes or min(num_threads, _MAX_LANES)


def _make_budget(
    engines: list[GenerationEngine] | list[DeviceEngine],
    manifest: Manifest,
    config: ServerConfig,
    num_models: int,
) -> CacheBudget:
    """The budget of each lane: of what is set, or of the model's share of the memory.

    By default a quarter of the memory is shared, or :data:`_DEVICE_CACHE_BYTES` of a device, so
    that weights, activations and other programs have the rest; lanes have equal parts. What an
    input of full length takes with the model's own beams is always granted: nobody should have to
    set anything for it.
    """
    record = manifest.generation
    assert record is not None
    engine = engines[0]
    shared = available_memory() // 4 if config.device == "cpu" else _DEVICE_CACHE_BYTES
    share = (config.cache_bytes or shared // num_models) // len(engines)
    budget = engine.budget(share)
    longest = CacheExtent(record.num_beams, record.max_target_length, manifest.max_source_length)
    needed = budget.bytes_for(longest)
    if needed <= share:
        return budget
    if not config.cache_bytes:
        return engine.budget(needed)
    _log.warning(
        "cache_bytes are too few for inputs of full length, which will be refused",
        model=f"{manifest.name}/{manifest.version}",
        cache_bytes=share * len(engines),
        needed_bytes=needed * len(engines),
    )
    return budget


def _check_links(folder: Path, manifest: Manifest) -> None:
    """Refuses files that lie elsewhere: whoever may write there could change them at any time.

    Links within the folder are how Kubernetes mounts files.
    """
    home = folder.resolve()
    for name in manifest.files:
        target = (folder / name).resolve()
        if not target.is_relative_to(home):
            raise ModelFolderError(
                f"{folder / name} is a link to {target}, outside of the model's folder; put the "
                "file itself there"
            )


def _check_vocabulary(folder: Path, tokenizer: Tokenizer, num_embeddings: int) -> None:
    if tokenizer.vocabulary_size > num_embeddings:
        raise ModelFolderError(
            f"{folder}: the tokenizer has {tokenizer.vocabulary_size} entries, but the model "
            f"embeds only {num_embeddings}"
        )


def _check_beams(folder: Path, num_beams: int, max_num_beams: int) -> None:
    """Refuses a default that no request may ask for; lowering it would change every answer."""
    if num_beams > max_num_beams:
        raise ModelFolderError(
            f"{folder} decodes with {num_beams} beams by default, but max_num_beams is "
            f"{max_num_beams}; raise --max-num-beams, or export the model with fewer beams"
        )
