"""Verifies the graph that ranks against a sort by numpy.

A search over wrong tokens would pass for a bad model, so the tokens must be the same, those of
equal logits included.
"""

from pathlib import Path

import numpy as np

from seqserve.ranker import open_ranker
from seqserve_export.errors import VerificationError
from seqserve_export.verification import NUM_INVARIANCE_ROWS, SEED, Comparison

_COUNTS = (1, 2, 9, 64)


def compare_rankings(path: Path, vocabulary_size: int) -> Comparison:
    """Ranks random rows, with many equal logits and with none, alone and together.

    Args:
        path: The graph.
        vocabulary_size: Of the model, V.

    Raises:
        VerificationError: Names the row whose tokens or log-probabilities differ.
    """
    comparison = Comparison("rank: numpy and ONNX, tokens equal, log-probabilities")
    rank = open_ranker(path, num_threads=1)
    generator = np.random.default_rng(SEED)
    shape = (NUM_INVARIANCE_ROWS, vocabulary_size)
    # On a grid, so that logits that differ still do when the same number is taken from them.
    logits = np.round(generator.standard_normal(shape, np.float32) * 256).astype(
        np.float32
    ) / np.float32(64)
    logits[::2] = np.round(logits[::2])
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    order = np.argsort(-logits, axis=1, kind="stable")
    for count in (min(count, vocabulary_size) for count in _COUNTS):
        tokens, log_probabilities = rank(logits, count)
        for row in range(len(logits)):
            where = f"row {row}, best {count}"
            best = order[row, :count]
            if tokens[row].tolist() != best.tolist():
                raise VerificationError(
                    f"{comparison.check}: {where} is {tokens[row].tolist()}, "
                    f"expected {best.tolist()}"
                )
            comparison.add(exact[row, best].astype(np.float32), log_probabilities[row], where)
            _, alone = rank(logits[row : row + 1], count)
            if alone.tobytes() != log_probabilities[row].tobytes():
                raise VerificationError(f"{comparison.check}: {where} differs alone")
    return comparison
