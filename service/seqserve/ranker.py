"""The graph that ranks a vocabulary: logits in, the most probable tokens out.

It belongs to the model folder, though it has no weights: what beam search does to every row of
every step is then computed by the kernels that compute the model, a third of the time numpy takes,
and without holding up the threads of other lanes.
"""

import math
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from seqserve.session import check_names, open_session

_CHUNK_BYTES = 2 << 20
"""Rows are ranked so many at a time that what is made of them stays in the processor's cache."""


class Ranker:
    """A session that may be shared by lanes; each row is ranked by itself, bit for bit."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def __call__(
        self, logits: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ranks rows, see :func:`seqserve.ranking.rank_rows` for what it returns."""
        num_rows, vocabulary_size = logits.shape
        chunk = max(1, _CHUNK_BYTES // (logits.itemsize * vocabulary_size))
        parts = [
            self._rank(logits[first : first + chunk], min(count, vocabulary_size))
            for first in range(0, num_rows, chunk)
        ]
        tokens, log_probabilities = zip(*parts, strict=True)
        return np.concatenate(tokens), np.concatenate(log_probabilities)

    def _rank(
        self, logits: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        tokens, log_probabilities = self._session.run(
            ["tokens", "log_probabilities"], {"logits": logits, "count": np.array([count])}
        )
        # Kernels may pass over a NaN; the maxima of numpy do not.
        log_probabilities[~np.isfinite(logits.max(axis=1))] = math.nan
        return tokens, log_probabilities


def open_ranker(path: Path, *, num_threads: int) -> Ranker:
    """Opens the graph.

    Args:
        path: The graph.
        num_threads: Threads that each run computes with.

    Raises:
        ModelFolderError: The graph is rejected, or is not one that ranks.
    """
    session = open_session(path, num_threads=num_threads, keeps_memory=True)
    check_names(session, path, ["logits", "count"], ["tokens", "log_probabilities"])
    return Ranker(session)
