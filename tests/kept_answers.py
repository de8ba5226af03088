"""Servers that keep answers: the setting, the counters, and how kept answers are told."""

from typing import Any

from serving import RunningServer

PATIENCE_SECONDS = 20.0
KEPT = {"response_cache_bytes": 10_000_000}
TEXTS = ["a cat sat", "a kitten was sitting", "it rains"]


def read(running: RunningServer, name: str, model: str = "tiny") -> float:
    """A counter of a model."""
    labels = {"model_name": model, "model_version": "1"}
    return running.metrics.registry.get_sample_value(f"seqserve_{name}_total", labels) or 0.0


def read_size(running: RunningServer, name: str) -> float:
    """A gauge of the cache."""
    value = running.metrics.registry.get_sample_value(f"seqserve_response_cache_{name}")
    assert value is not None
    return value


def without_timing(message: Any) -> Any:
    """A reply but for where the time went."""
    copy = type(message)()
    copy.CopyFrom(message)
    for result in copy.embeddings if hasattr(copy, "embeddings") else copy.results:
        result.ClearField("timing")
    return copy


def timings(message: Any) -> list[Any]:
    """Where the time of each input went."""
    results = message.embeddings if hasattr(message, "embeddings") else message.results
    return [result.timing for result in results]
