"""A plain ONNX graph run as a careful user would, in a process of its own.

Texts are tokenized together, sorted by length, padded to the longest of their batch, pooled with
numpy and put back in order: what Optimum and infinity do around the same session.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bench.json_process import answer

_NUM_THREADS = 2
_MAX_LENGTH = 256


class Library:
    """One session over one graph."""

    def __init__(self, graph: str, tokenizer_file: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _NUM_THREADS
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer.from_file(tokenizer_file)
        self._tokenizer.enable_truncation(_MAX_LENGTH)
        self._tokenizer.enable_padding()

    def embed(self, texts_file: str, batch_size: int, vectors_file: str | None = None) -> float:
        """Seconds to embed all texts."""
        texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
        started_at = time.perf_counter()
        # By characters, as sentence-transformers sorts: nothing is tokenized twice.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        vectors: list[Any] = [None] * len(texts)
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            embedded = self._embed([texts[index] for index in indices])
            for index, vector in zip(indices, embedded, strict=True):
                vectors[index] = vector
        seconds = time.perf_counter() - started_at
        if vectors_file is not None:
            np.save(vectors_file, np.stack(vectors))
        return seconds

    def time_single(self, texts: list[str]) -> list[float]:
        """Seconds of single texts, one after the other."""
        seconds = []
        for text in texts:
            started_at = time.perf_counter()
            self._embed([text])
            seconds.append(time.perf_counter() - started_at)
        return seconds

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        encodings = self._tokenizer.encode_batch_fast(texts)
        mask = np.array([encoding.attention_mask for encoding in encodings])
        feeds = {
            "input_ids": np.array([encoding.ids for encoding in encodings]),
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(mask),
        }
        (states,) = self._session.run(None, feeds)
        weights = mask[:, :, None].astype(np.float32)
        means = (states * weights).sum(axis=1) / weights.sum(axis=1)
        vectors: NDArray[np.float32] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return vectors


def main() -> None:
    """Answers the benchmark."""
    library = Library(*sys.argv[1:])
    answer({"embed": library.embed, "time_single": library.time_single})


if __name__ == "__main__":
    main()
