"""sentence-transformers on torch, in a process of its own."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from bench.json_process import answer

_NUM_THREADS = 2


class Library:
    """The checkpoint in fp32, as ``SentenceTransformer`` loads it."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(_NUM_THREADS)
        self._model = SentenceTransformer(folder, device="cpu")

    def embed(self, texts_file: str, batch_size: int, vectors_file: str | None = None) -> float:
        """Seconds to embed all texts; they are sorted by length by the library."""
        texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
        started_at = time.perf_counter()
        vectors = self._model.encode(texts, batch_size=batch_size)
        seconds = time.perf_counter() - started_at
        if vectors_file is not None:
            np.save(vectors_file, vectors)
        return seconds

    def time_single(self, texts: list[str]) -> list[float]:
        """Seconds of single texts, one after the other."""
        seconds = []
        for text in texts:
            started_at = time.perf_counter()
            self._model.encode(text)
            seconds.append(time.perf_counter() - started_at)
        return seconds


def main() -> None:
    """Answers the benchmark."""
    library = Library(sys.argv[1])
    functions: dict[str, Any] = {"embed": library.embed, "time_single": library.time_single}
    answer(functions)


if __name__ == "__main__":
    main()
