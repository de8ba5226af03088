"""The engine without gRPC, in a process of its own: what the server adds is the difference."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from bench.json_process import answer
from bench.request import to_input
from bench.workload import Sentence
from seqserve.config_source import read_config
from seqserve.memory import keep_freed_memory
from seqserve.metrics import Metrics
from seqserve.model_opening import open_model
from seqserve.search import make_search
from seqserve.sequence import Generation, Sequence
from seqserve.servicers.options import resolve_options


class InProcess:
    """The lanes of the model, and an event loop that waits for it."""

    def __init__(self, folder: str, settings: list[str]) -> None:
        flags = dict(setting.split("=", 1) for setting in settings)
        keep_freed_memory()  # as the server does
        self._config = read_config(flags)
        self._model = open_model(Path(folder), self._config, Metrics())
        self._runner = asyncio.Runner()
        self._model.lanes.start(self._runner.get_loop())

    def generate(self, sentences: list[Any]) -> dict[str, Any]:
        """Generates from all sentences by greedy search, submitted at once."""
        return self._runner.run(self._generate([Sentence(*sentence) for sentence in sentences]))

    def close(self) -> None:
        """Ends the lanes."""
        self._model.lanes.close()
        self._runner.run(self._model.lanes.join())
        self._runner.close()

    async def _generate(self, sentences: list[Sentence]) -> dict[str, Any]:
        started_at = time.perf_counter()
        sequences = [self._make_sequence(sentence) for sentence in sentences]
        futures = [sequence.future for sequence in sequences]
        self._model.lanes.submit(sequences)
        targets = []
        for future in futures:
            assert isinstance(future, asyncio.Future)
            generation = await future
            assert isinstance(generation, Generation)
            targets.append(list(generation.hypotheses[0].tokens))
        return {"seconds": time.perf_counter() - started_at, "targets": targets}

    def _make_sequence(self, sentence: Sentence) -> Sequence:
        """A sequence with the very options that a servicer would give it."""
        record = self._model.manifest.generation
        assert record is not None
        options = resolve_options([(to_input(sentence).options, "options")], record, self._config)
        return Sequence(
            source_tokens=tuple(sentence.source),
            future=asyncio.get_running_loop().create_future(),
            search=make_search(
                options,
                decoder_start_token_id=record.decoder_start_token_id,
                eos_token_id=record.eos_token_id,
            ),
            submitted_at=time.monotonic(),
        )


def main() -> None:
    """Answers the benchmark."""
    engine = InProcess(sys.argv[1], sys.argv[2:])
    answer({"generate": engine.generate})
    engine.close()


if __name__ == "__main__":
    main()
