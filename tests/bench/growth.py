"""How the time of a step grows with live rows and with source length, in a process of its own.

The engine is driven directly, without scheduler, worker and server.
"""

import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.extent import Extent
from bench.json_process import JsonProcess, answer
from bench.opus_checkpoint import OpusModel
from bench.workload import make_equal_sentences
from seqserve.batch import Batch
from seqserve.cache_budget import NOTHING, CacheExtent, CacheResize
from seqserve.engine import GenerationEngine
from seqserve.generate_options import GenerateOptions
from seqserve.generation_graphs import open_generation_graphs
from seqserve.manifest import read_manifest
from seqserve.search import make_search
from seqserve.sequence import Sequence
from seqserve.session import available_cpus

_NUM_ROWS = tuple(2**power for power in range(9))
_SOURCE_LENGTHS = tuple(2**power for power in range(4, 10))
_SOURCE_LENGTH = 24
_ROWS_OF_LENGTHS = 16
_MAX_NEW_TOKENS = 500
_NUM_WARMUP_STEPS = 4
_ENCODE_ROWS = 64


def measure_growth(
    model: OpusModel, settings: Mapping[str, str], extent: Extent, console: Console
) -> dict[str, Any]:
    """Steps for 1 to 256 live rows, and for sources of 16 to 512 tokens."""
    with JsonProcess("bench.growth", str(model.folder)) as engine:
        return {
            "rows": [
                engine.call(
                    "time_steps",
                    num_rows=num_rows,
                    source_length=_SOURCE_LENGTH,
                    num_steps=extent.num_steps,
                )
                for num_rows in _NUM_ROWS
            ],
            "source_lengths": [
                engine.call(
                    "time_steps",
                    num_rows=_ROWS_OF_LENGTHS,
                    source_length=source_length,
                    num_steps=extent.num_steps,
                )
                for source_length in _SOURCE_LENGTHS
            ],
        }


class _AlwaysWanted:
    """A future that nobody abandons."""

    def done(self) -> bool:
        """Never."""
        return False


class Steps:
    """An engine with as many rows as the largest measurement has."""

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        record = manifest.generation
        assert record is not None
        self._record = record
        graphs = open_generation_graphs(folder, manifest, num_threads=available_cpus())
        self._engine = GenerationEngine(graphs, manifest, max_rows=max(_NUM_ROWS))

    def time_steps(self, num_rows: int, source_length: int, num_steps: int) -> dict[str, Any]:
        """The median step of a number of rows, and what encoding them took."""
        sequences = [
            self._make_sequence(row, sentence.source)
            for row, sentence in enumerate(make_equal_sentences(num_rows, source_length, seed=4))
        ]
        extent = CacheExtent(num_rows, _MAX_NEW_TOKENS, source_length)
        resize: CacheResize | None = CacheResize(extent, NOTHING)
        started_at = time.perf_counter()
        for start in range(0, num_rows, _ENCODE_ROWS):
            part = sequences[start : start + _ENCODE_ROWS]
            self._engine.run(Batch("encode", part, resize=resize))
            resize = None
        encode_seconds = time.perf_counter() - started_at
        batch = Batch("decode", sequences)
        seconds = []
        for _ in range(_NUM_WARMUP_STEPS + num_steps):
            started_at = time.perf_counter()
            outcomes = self._engine.run(batch)
            seconds.append(time.perf_counter() - started_at)
            for sequence, outcome in zip(sequences, outcomes, strict=True):
                assert sequence.search is not None
                assert isinstance(outcome, list)
                sequence.search.advance(outcome)
        step_seconds = statistics.median(seconds[_NUM_WARMUP_STEPS:])
        return {
            "num_rows": num_rows,
            "source_length": source_length,
            "encode_seconds": encode_seconds,
            "step_seconds": step_seconds,
            "tokens_per_second": num_rows / step_seconds,
        }

    def _make_sequence(self, row: int, source: list[int]) -> Sequence:
        options = GenerateOptions(
            max_new_tokens=_MAX_NEW_TOKENS,
            min_new_tokens=_MAX_NEW_TOKENS,
            suppressed_tokens=self._record.suppressed_tokens,
        )
        sequence = Sequence(
            source_tokens=tuple(source),
            future=_AlwaysWanted(),
            search=make_search(
                options,
                decoder_start_token_id=self._record.decoder_start_token_id,
                eos_token_id=self._record.eos_token_id,
            ),
            submitted_at=time.monotonic(),
        )
        sequence.rows = [row]
        sequence.source_rows = frozenset(sequence.rows)
        return sequence


if __name__ == "__main__":
    answer({"time_steps": Steps(Path(sys.argv[1])).time_steps})
