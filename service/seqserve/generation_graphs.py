"""The graphs of an encoder-decoder model, opened, with the names of their tensors."""

import dataclasses
from pathlib import Path

import onnxruntime

from seqserve.beam_choice import Rank
from seqserve.device import Device
from seqserve.manifest import Manifest
from seqserve.ranker import open_ranker
from seqserve.ranking import rank_rows
from seqserve.session import cache_names, check_names, open_session, row_names


@dataclasses.dataclass(frozen=True, slots=True)
class GenerationGraphs:
    """Sessions that may be shared: onnxruntime allows several threads to run one."""

    encode: onnxruntime.InferenceSession
    decode: onnxruntime.InferenceSession
    rank: Rank
    """What ranks logits: a graph, if the model has one."""
    past_names: tuple[list[str], list[str]]
    """Inputs of ``decode``: keys and values of the target, then of the source, by layer."""
    present_names: tuple[list[str], list[str]]
    """Outputs of ``decode`` in the same order; those of the source are outputs of ``encode``."""


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceGraphs:
    """Sessions that do on a device what the process does in its own memory."""

    move_rows: onnxruntime.InferenceSession
    """Copies rows of a cache."""
    best_tokens: onnxruntime.InferenceSession
    """Finds the best tokens of logits."""


def open_generation_graphs(
    folder: Path, manifest: Manifest, *, num_threads: int, device: Device = "cpu"
) -> GenerationGraphs:
    """Opens the graphs of a model folder.

    Args:
        folder: The folder.
        manifest: What it says of itself.
        num_threads: Threads that each run computes with.
        device: Where they are computed.

    Raises:
        ModelFolderError: A graph is rejected, or is not what the manifest means.
        ConfigurationError: The device cannot be used.
    """
    record = manifest.generation
    assert record is not None
    past_target, past_source = (
        cache_names("past_key_values", side, record.num_layers) for side in ("decoder", "encoder")
    )
    present_target, present_source = (
        cache_names("present", side, record.num_layers) for side in ("decoder", "encoder")
    )
    encode = open_session(folder / record.encode_graph, num_threads=num_threads, device=device)
    check_names(
        encode,
        folder / record.encode_graph,
        ["input_ids", "source_lengths"],
        ["last_hidden_state", *present_source],
    )
    decode = open_session(
        folder / record.decode_graph, num_threads=num_threads, is_decoding=True, device=device
    )
    check_names(
        decode,
        folder / record.decode_graph,
        ["input_ids", "past_lengths", "source_lengths", *past_target, *past_source],
        ["logits", *present_target, *present_source],
    )
    rank: Rank = rank_rows
    if record.rank_graph is not None:
        rank = open_ranker(folder / record.rank_graph, num_threads=num_threads)
    return GenerationGraphs(
        encode=encode,
        decode=decode,
        rank=rank,
        past_names=(past_target, past_source),
        present_names=(present_target, present_source),
    )


def open_device_graphs(
    folder: Path, manifest: Manifest, *, num_threads: int, device: Device
) -> DeviceGraphs:
    """Opens the graphs that only a device needs.

    Args:
        folder: The folder.
        manifest: What it says of itself; it must name the graphs.
        num_threads: Threads that each run computes with.
        device: Where they are computed.

    Raises:
        ModelFolderError: A graph is rejected, or is not what the manifest means.
        ConfigurationError: The device cannot be used.
    """
    record = manifest.generation
    assert record is not None
    assert record.move_rows_graph is not None
    assert record.best_tokens_graph is not None
    path = folder / record.move_rows_graph
    move_rows = open_session(path, num_threads=num_threads, device=device)
    caches, origins, presents = (
        row_names(prefix, record.num_layers)
        for prefix in ("past_key_values", "origin_key_values", "present")
    )
    check_names(move_rows, path, ["source_rows", "target_rows", *caches, *origins], presents)
    path = folder / record.best_tokens_graph
    best_tokens = open_session(path, num_threads=num_threads, device=device)
    check_names(best_tokens, path, ["logits"], ["best_tokens"])
    return DeviceGraphs(move_rows=move_rows, best_tokens=best_tokens)
