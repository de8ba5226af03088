"""One sentence at a time: latency, first token, and how soon a server answers after its start."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from bench.extent import Extent
from bench.json_process import JsonProcess
from bench.opus_checkpoint import OpusModel
from bench.opus_server import running_ours, running_peer
from bench.workload import MeasurementError, make_equal_sentences

_LENGTH = 24
_INTRA_THREADS = 2


def measure_single_stream(
    model: OpusModel, settings: Mapping[str, str], extent: Extent, console: Console
) -> dict[str, Any]:
    """Seconds of single calls: ours over gRPC, CTranslate2 as a library, and behind its server."""
    (sentence,) = make_equal_sentences(1, _LENGTH, seed=3)
    seconds: dict[str, list[float]] = {
        name: []
        for name in (
            *("seqserve", "library", "peer_server"),
            *("seqserve_first_token", "library_first_token"),
        )
    }
    loads: dict[str, list[float]] = {"seqserve": [], "peer_server": []}
    for _ in range(extent.num_starts - 1):
        with running_ours(model, settings) as server:
            loads["seqserve"].append(server.load_seconds)
        with running_peer(model, 1, _INTRA_THREADS) as server:
            loads["peer_server"].append(server.load_seconds)
    with (
        running_ours(model, settings) as server,
        running_peer(model, 1, _INTRA_THREADS) as peer_server,
        JsonProcess("bench.peer_ctranslate2", str(model.peer)) as library,
        JsonProcess("bench.load_generator") as generator,
    ):
        loads["seqserve"].append(server.load_seconds)
        loads["peer_server"].append(peer_server.load_seconds)
        library.call("load", inter_threads=1, intra_threads=_INTRA_THREADS)

        def run_round() -> dict[str, list[float]]:
            arguments = {"sentence": sentence, "num_calls": extent.num_calls}
            ours, theirs = server.target, peer_server.target
            alone = library.call("time_single", **arguments)
            if alone["num_tokens"] != [_LENGTH]:
                raise MeasurementError(f"CTranslate2 generated {alone['num_tokens']} tokens")
            return {
                "seqserve": generator.call("time_single", target=ours, **arguments),
                "library": alone["seconds"],
                "peer_server": generator.call("time_single", target=theirs, **arguments),
                "seqserve_first_token": generator.call(
                    "time_first_token", target=ours, **arguments
                ),
                "library_first_token": alone["first_token_seconds"],
            }

        run_round()  # warm up
        for _ in range(extent.num_rounds):
            for name, values in run_round().items():
                seconds[name] += values
    console.print("single calls measured")
    return {"length": _LENGTH, "seconds": seconds, "load_seconds": loads}
