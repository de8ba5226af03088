"""The engines of a model, one for each lane, and what each lane may take for its cache."""

from pathlib import Path

import structlog

from seqserve.cache_budget import CacheBudget, CacheExtent
from seqserve.config import ServerConfig
from seqserve.device_engine import DeviceEngine
from seqserve.engine import EmbeddingEngine, Engine, GenerationEngine, PredictionEngine
from seqserve.generation_graphs import open_device_graphs, open_generation_graphs
from seqserve.manifest import Manifest
from seqserve.memory import available_memory
from seqserve.shared_sessions import SharedSessions
from seqserve.task_record import EmbeddingRecord

_log = structlog.get_logger(__name__)

_MAX_LANES = 4
"""Chosen by default: more would leave each with few rows, unless the load is heavy."""
_DEVICE_CACHE_BYTES = 2 * 1024**3
"""What caches on a device have by default: how much memory it has, onnxruntime does not tell."""


def open_generation_engines(
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


def open_encoder_engines(
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


def make_budget(
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
