"""fastembed pointed at local files, in a process and an environment of its own."""

import importlib.metadata
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

from bench.json_process import answer

_NUM_THREADS = 2
_NAME = "bench/encoder"


class Library:
    """One model of fastembed over a plain graph and the tokenizer of a checkpoint."""

    def __init__(self, graph: str, checkpoint: str) -> None:
        settings = json.loads((Path(checkpoint) / "config.json").read_text(encoding="utf-8"))
        self._scratch = tempfile.TemporaryDirectory()
        folder = Path(self._scratch.name)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(Path(checkpoint) / name, folder)
        special_tokens = Path(checkpoint) / "special_tokens_map.json"
        if special_tokens.is_file():
            shutil.copy(special_tokens, folder)
        shutil.copy(graph, folder / "model.onnx")
        TextEmbedding.add_custom_model(
            model=_NAME,
            pooling=PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(hf=_NAME),
            dim=settings["hidden_size"],
            model_file="model.onnx",
        )
        self._model = TextEmbedding(
            _NAME, specific_model_path=str(folder), threads=_NUM_THREADS, local_files_only=True
        )

    def embed(self, texts_file: str, batch_size: int, vectors_file: str | None = None) -> float:
        """Seconds to embed all texts, in the order in which they come."""
        texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
        started_at = time.perf_counter()
        vectors = list(self._model.embed(texts, batch_size=batch_size))
        seconds = time.perf_counter() - started_at
        if vectors_file is not None:
            np.save(vectors_file, np.stack(vectors))
        return seconds

    def time_single(self, texts: list[str]) -> list[float]:
        """Seconds of single texts, one after the other."""
        seconds = []
        for text in texts:
            started_at = time.perf_counter()
            list(self._model.embed([text]))
            seconds.append(time.perf_counter() - started_at)
        return seconds


def main() -> None:
    """Answers the benchmark."""
    library = Library(*sys.argv[1:])
    functions: dict[str, Callable[..., Any]] = {
        "embed": library.embed,
        "time_single": library.time_single,
        "version": lambda: importlib.metadata.version("fastembed"),
    }
    answer(functions)


if __name__ == "__main__":
    main()
