"""Opens a model from its folder: reads, checks, and puts together what serves it."""

import time
from pathlib import Path

import structlog

from seqserve.admission import Admission
from seqserve.cache_budget import CacheBudget
from seqserve.config import ServerConfig
from seqserve.device import check_format
from seqserve.device_check import check_results
from seqserve.device_engine import DeviceEngine
from seqserve.engine import Engine, GenerationEngine
from seqserve.errors import ModelFolderError
from seqserve.explainer import Explainer
from seqserve.graph_file import check_external_data
from seqserve.intake import SchedulerLimits
from seqserve.lane_engine import make_budget, open_encoder_engines, open_generation_engines
from seqserve.lanes import Lanes
from seqserve.manifest import Manifest, read_manifest
from seqserve.metrics import Metrics
from seqserve.model_metrics import ModelMetrics
from seqserve.rehearsal import rehearse
from seqserve.response_cache import ResponseCache
from seqserve.served_model import ServedModel
from seqserve.session import available_cpus
from seqserve.shared_answers import SharedAnswers
from seqserve.tokenizer import Tokenizer
from seqserve.worker import Worker

_log = structlog.get_logger(__name__)


def open_model(
    folder: Path,
    config: ServerConfig,
    metrics: Metrics,
    *,
    num_models: int = 1,
    is_rehearsed: bool = False,
    response_cache: ResponseCache | None = None,
) -> ServedModel:
    """Reads, checks and opens a model folder; the worker is not started.

    Args:
        folder: The model.
        config: The settings.
        metrics: Where it records.
        num_models: Models that share the memory, this one included.
        is_rehearsed: Whether each lane runs a small input first.
        response_cache: Where its answers are kept; None: nowhere.

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
        generation = open_generation_engines(folder, manifest, config, num_threads)
        engines = list(generation)
        budget = make_budget(generation, manifest, config, num_models)
        model_metrics.set_cache_budget(budget.max_bytes * len(engines))
        model_metrics.set_max_rows(config.max_batch_size * len(engines))
    else:
        engines = open_encoder_engines(folder, manifest, config, num_threads, num_models)
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
    lanes = Lanes(
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
    )
    explainer = None
    if manifest.explanation is not None:
        explainer = Explainer(folder, manifest, config.priority_ageing_seconds)
        model_metrics.watch_explanations(explainer.count_waiting)
    shared_answers = None
    if response_cache is not None or config.deduplicate:
        shared_answers = SharedAnswers(
            lanes, model_metrics, response_cache, deduplicates=config.deduplicate
        )
    return ServedModel(
        manifest=manifest,
        source_tokenizer=source_tokenizer,
        target_tokenizer=target_tokenizer,
        lanes=lanes,
        admission=Admission(config.max_outstanding),
        token_admission=Admission(config.max_outstanding_tokens, noun="tokens"),
        metrics=model_metrics,
        budget=budget,
        is_batch_invariant=is_batch_invariant,
        shared_answers=shared_answers,
        explainer=explainer,
    )


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
