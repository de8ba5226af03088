"""Compares a device with the processor before a model is served on it.

Export verifies graphs on the processor. A kernel of a device may lack what a graph asks for and
compute something else without an error: attention that looks back only, say, where an encoder
looks both ways. So each graph is run once on both, over a small ragged batch.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqserve.device import Device
from seqserve.errors import ConfigurationError
from seqserve.manifest import Manifest
from seqserve.session import cache_names, open_session, row_names
from seqserve.task_record import GenerationRecord

Feeds = dict[str, NDArray[Any]]

_TOLERANCE = 0.05
"""Most difference, as a share of the norm: a hundred times the rounding of half precision. What
moves rows and finds the best tokens computes nothing new and must not differ."""
_SOURCE_LENGTH = 9
_SHORT_LENGTH = 4
"""Of the second source: what lies behind it is not compared."""
_CAPACITY = 32
_SEED = 1


def check_results(folder: Path, manifest: Manifest, *, num_threads: int, device: Device) -> None:
    """Compares every graph of a model; nothing is compared for the processor itself.

    Args:
        folder: The model.
        manifest: What it says of itself.
        num_threads: Threads that the processor computes with.
        device: What is compared with the processor.

    Raises:
        ConfigurationError: A graph gives other results; the message names it and the output.
        ModelFolderError: A graph is rejected.
    """
    if device == "cpu":
        return
    generation = manifest.generation
    feeds: dict[str, Feeds] = {}
    exact: dict[str, Feeds] = {}
    if generation is not None:
        feeds[generation.encode_graph] = _source_feeds(manifest)
        feeds[generation.decode_graph] = _step_feeds(generation)
        assert generation.move_rows_graph is not None
        assert generation.best_tokens_graph is not None
        exact[generation.move_rows_graph] = _move_feeds(generation)
        exact[generation.best_tokens_graph] = _logits_feeds(generation)
    elif manifest.embedding is not None:
        feeds[manifest.embedding.embed_graph] = _source_feeds(manifest)
    elif manifest.prediction is not None:
        feeds[manifest.prediction.graph] = _source_feeds(manifest)
    for tolerance, graphs in ((_TOLERANCE, feeds), (0.0, exact)):
        for name, one in graphs.items():
            _compare(folder / name, one, tolerance, num_threads, device)


def _compare(path: Path, feeds: Feeds, tolerance: float, num_threads: int, device: Device) -> None:
    results = []
    for where in ("cpu", device):
        session = open_session(path, num_threads=num_threads, device=where)
        names = [node.name for node in session.get_outputs()]
        results.append(dict(zip(names, session.run(names, feeds), strict=True)))
    for name, expected in results[0].items():
        wanted, actual = expected, results[1][name]
        if tolerance:
            wanted, actual = _valid_part(wanted), _valid_part(actual)
        difference = _measure(wanted, actual)
        # Written so that NaN fails.
        if not difference <= tolerance:
            allowed = f"{tolerance:.0%} are allowed" if tolerance else "nothing is allowed"
            raise ConfigurationError(
                f"{path}: on {device} {name} differs from what the processor computes by "
                f"{difference:.2%} of its norm, and {allowed}; this version of onnxruntime does "
                f"not support the model on {device}; set device to cpu"
            )


def _measure(expected: NDArray[Any], actual: NDArray[Any]) -> float:
    """The norm of the difference, as a share of that of the expected tensor."""
    wanted = expected.astype(np.float64)
    norm = max(float(np.linalg.norm(wanted)), 1e-30)
    return float(np.linalg.norm(actual.astype(np.float64) - wanted)) / norm


def _valid_part(output: NDArray[Any]) -> NDArray[Any]:
    """What states [B, S, M] or keys and values [B, H, S, D] hold for the second row.

    Within the short length, where all of it is valid; other outputs are valid as a whole.
    """
    if output.ndim == 4:
        return output[1, :, :_SHORT_LENGTH]
    return output[1, :_SHORT_LENGTH] if output.ndim == 3 else output


def _source_feeds(manifest: Manifest) -> Feeds:
    """Two sources, the second one shorter; masks among the tokens where a model fills them."""
    rng = np.random.default_rng(_SEED)
    length = min(_SOURCE_LENGTH, manifest.max_source_length)
    input_ids = rng.integers(0, manifest.source_vocabulary_size, (2, length))
    if manifest.mask_filling is not None:
        input_ids[:, 0] = manifest.mask_filling.mask_token_id
    lengths = np.array([length, min(_SHORT_LENGTH, length)], np.int32)
    feeds: Feeds = {"input_ids": input_ids, "source_lengths": lengths}
    if manifest.prediction is not None and manifest.prediction.has_token_types:
        feeds["token_type_ids"] = np.zeros_like(input_ids)
    return feeds


def _step_feeds(record: GenerationRecord) -> Feeds:
    """Three rows with pasts and sources of different lengths, and random caches."""
    rng = np.random.default_rng(_SEED)
    longest_past = min(_CAPACITY, record.max_target_length) - 1
    feeds: Feeds = {
        "input_ids": rng.integers(0, record.target_vocabulary_size, 3),
        "past_lengths": np.array([0, min(_SHORT_LENGTH, longest_past), longest_past], np.int32),
        "source_lengths": np.array([1, _SOURCE_LENGTH, _CAPACITY], np.int32),
    }
    for side in ("decoder", "encoder"):
        for name in cache_names("past_key_values", side, record.num_layers):
            feeds[name] = _draw_rows(rng, record, _CAPACITY)
    return feeds


def _move_feeds(record: GenerationRecord) -> Feeds:
    """Two rows that go to a cache which is longer than what they come from."""
    rng = np.random.default_rng(_SEED)
    feeds: Feeds = {"source_rows": np.array([1, 0]), "target_rows": np.array([0, 2])}
    for prefix, capacity in (("past_key_values", _CAPACITY), ("origin_key_values", _SOURCE_LENGTH)):
        for name in row_names(prefix, record.num_layers):
            feeds[name] = _draw_rows(rng, record, capacity)
    return feeds


def _logits_feeds(record: GenerationRecord) -> Feeds:
    """Rows whose best tokens are several, the last one, and none that is finite."""
    logits = np.zeros((4, record.target_vocabulary_size), np.float32)
    logits[1, -1] = 1.0
    logits[2, -1] = np.nan
    logits[3] = -np.inf
    return {"logits": logits}


def _draw_rows(
    rng: np.random.Generator, record: GenerationRecord, capacity: int
) -> NDArray[np.float16]:
    """Keys or values of three rows, [3, H, P, D]."""
    shape = (3, record.num_heads, capacity, record.head_size)
    return rng.normal(size=shape).astype(np.float16)
