"""What a model has done, from its metrics, as the protocol tells it."""

from prometheus_client import CollectorRegistry

from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.served_model import ServedModel

_Duration = open_inference_pb2.StatisticDuration
_NANOSECONDS = 1e9


def describe_model(
    model: ServedModel, registry: CollectorRegistry, device: str
) -> open_inference_pb2.ModelStatistics:
    """The statistics of a model since the server started.

    Args:
        model: The model.
        registry: Its metrics, and others.
        device: Where it is computed.
    """
    sums = _sum_samples(model, registry)
    queue = _to_duration(sums, "seqserve_queue_duration_seconds")
    compute = _to_duration(sums, "seqserve_step_duration_seconds")
    num_hits = round(sums.get("seqserve_response_cache_hits_total", 0))
    num_misses = round(sums.get("seqserve_response_cache_misses_total", 0))
    num_failed = sums.get("seqserve_rejected_total", 0) + sums.get("seqserve_failed_steps_total", 0)
    statistics = open_inference_pb2.ModelStatistics(
        name=model.manifest.name,
        version=model.manifest.version,
        inference_count=queue.count,
        execution_count=compute.count,
        inference_stats=open_inference_pb2.InferStatistics(
            success=_Duration(count=queue.count + num_hits, ns=queue.ns + compute.ns),
            fail=_Duration(count=round(num_failed)),
            queue=queue,
            compute_infer=compute,
            cache_hit=_Duration(count=num_hits),
            cache_miss=_Duration(count=num_misses),
        ),
    )
    if model.budget is not None:
        statistics.memory_usage.add(
            type="CPU" if device == "cpu" else "GPU",
            byte_size=round(sums.get("seqserve_cache_reserved_bytes", 0)),
        )
    return statistics


def _sum_samples(model: ServedModel, registry: CollectorRegistry) -> dict[str, float]:
    """The samples of a model by name, over all other labels."""
    own = (model.manifest.name, model.manifest.version)
    sums: dict[str, float] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            labels = sample.labels
            if (labels.get("model_name"), labels.get("model_version")) == own:
                sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


def _to_duration(sums: dict[str, float], name: str) -> open_inference_pb2.StatisticDuration:
    return _Duration(
        count=round(sums.get(f"{name}_count", 0)),
        ns=round(sums.get(f"{name}_sum", 0) * _NANOSECONDS),
    )
