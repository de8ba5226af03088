"""The graphs of an encoder-decoder model, opened, with the names of their tensors."""

import dataclasses
from pathlib import Path

import onnxruntime

from seqserve.beam_choice import Rank
from seqserve.manifest import Manifest
from seqserve.ranker import open_ranker
from seqserve.ranking import rank_rows
from seqserve.session import cache_names, check_names, open_session


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


def open_generation_graphs(
    folder: Path, manifest: Manifest, *, num_threads: int
) -> GenerationGraphs:
    """Opens the graphs of a model folder.

    Args:
        folder: The folder.
        manifest: What it says of itself.
        num_threads: Threads that each run computes with.

    Raises:
        ModelFolderError: A graph is rejected, or is not what the manifest means.
    """
    record = manifest.generation
    assert record is not None
    past_target, past_source = (
        cache_names("past_key_values", side, record.num_layers) for side in ("decoder", "encoder")
    )
    present_target, present_source = (
        cache_names("present", side, record.num_layers) for side in ("decoder", "encoder")
    )
    encode = open_session(folder / record.encode_graph, num_threads=num_threads)
    check_names(
        encode,
        folder / record.encode_graph,
        ["input_ids", "source_lengths"],
        ["last_hidden_state", *present_source],
    )
    decode = open_session(folder / record.decode_graph, num_threads=num_threads, is_decoding=True)
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
