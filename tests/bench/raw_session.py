"""The served graph run alone, as fast as it goes: the limit for the server around it.

Tokens are there before the clock starts, texts are sorted by length once for all, and batches are
as large as is best. As many threads as there are processors each run batches of their own, which
was found to be the fastest way.
"""

import json
import queue
import sys
import threading
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from bench.json_process import answer
from seqserve.manifest import read_manifest
from seqserve.memory import keep_freed_memory
from seqserve.session import available_cpus, open_session, pad

_LONGEST = 256


class RawSession:
    """The session of one served model."""

    def __init__(self, folder: str) -> None:
        keep_freed_memory()  # as the server does
        record = read_manifest(Path(folder)).embedding
        assert record is not None
        self._session = open_session(Path(folder) / record.embed_graph, num_threads=1)
        self._tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self._texts_file = ""
        self._tokens: list[tuple[int, ...]] = []

    def embed(self, texts_file: str, max_tokens: int, vectors_file: str | None = None) -> float:
        """Seconds to embed all texts in batches of so many tokens, padding included."""
        if texts_file != self._texts_file:
            texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
            encodings = self._tokenizer.encode_batch_fast(texts)
            self._tokens = [tuple(encoding.ids[:_LONGEST]) for encoding in encodings]
            self._texts_file = texts_file
        batches: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
        for batch in self._make_batches(max_tokens):
            batches.put(batch)
        vectors = [np.zeros(0, np.float32)] * len(self._tokens)

        def work() -> None:
            while True:
                try:
                    indices = batches.get_nowait()
                except queue.Empty:
                    return
                input_ids, lengths = pad([self._tokens[index] for index in indices])
                (rows,) = self._session.run(
                    ["sentence_embedding"], {"input_ids": input_ids, "source_lengths": lengths}
                )
                for index, row in zip(indices, rows, strict=True):
                    vectors[index] = row

        threads = [threading.Thread(target=work) for _ in range(available_cpus())]
        started_at = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started_at
        if vectors_file is not None:
            np.save(vectors_file, np.stack(vectors))
        return seconds

    def _make_batches(self, max_tokens: int) -> list[list[int]]:
        """Longest first, so that the threads end together."""
        order = sorted(range(len(self._tokens)), key=lambda index: -len(self._tokens[index]))
        batches: list[list[int]] = []
        while order:
            size = max(1, max_tokens // len(self._tokens[order[0]]))
            batches.append(order[:size])
            del order[:size]
        return batches


def main() -> None:
    """Answers the benchmark."""
    session = RawSession(sys.argv[1])
    answer({"embed": session.embed})


if __name__ == "__main__":
    main()
