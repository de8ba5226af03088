"""The two servers of the decode benchmark, with its model, each as a process."""

import contextlib
from collections.abc import Iterator, Mapping

from bench.opus_checkpoint import OpusModel
from bench.request import generate
from bench.server_process import ServerProcess, running_module, running_seqserve
from bench.workload import check_targets, make_equal_sentences


@contextlib.contextmanager
def running_ours(model: OpusModel, settings: Mapping[str, str]) -> Iterator[ServerProcess]:
    """Runs ``seqserve serve`` with settings, by their names."""
    with running_seqserve(model.store, settings, _translate_first) as server:
        yield server


@contextlib.contextmanager
def running_peer(
    model: OpusModel, inter_threads: int, intra_threads: int
) -> Iterator[ServerProcess]:
    """Runs the peer's server."""
    module = ["bench.peer_server", str(model.peer), str(inter_threads), str(intra_threads)]
    with running_module("peer", module, _translate_first) as server:
        yield server


def _translate_first(target: str) -> None:
    """Sends one sentence.

    Raises:
        MeasurementError: The server does not generate what was asked for.
    """
    sentences = make_equal_sentences(1, 8, seed=0)
    check_targets(target, sentences, generate(target, sentences))
