"""Draws a token at random: the same one for the same seed, whatever else is in the batch.

Temperature, the k most probable tokens, then those that make up a probability of p. Among what is
left a number in [0, 1) picks a token; the number depends on seed, hypothesis and position alone.
Everything is computed row by row, in float64.

Source: ``TemperatureLogitsWarper``, ``TopKLogitsWarper`` (Fan et al. 2018, arXiv:1805.04833) and
``TopPLogitsWarper`` (Holtzman et al. 2019, arXiv:1904.09751) of ``transformers`` 5, in the order of
``GenerationMixin._get_logits_processor``. Of tokens that tie at the limit of ``top_p`` the lower
ones stay, where ``torch.sort`` leaves it open. The numbers: Philox of Salmon et al. 2011.
"""

import numpy as np
from numpy.typing import NDArray

from seqserve.generate_options import GenerateOptions

_FIRST_LOOK = 256
"""Tokens that are sorted at first; nearly every draw falls among them."""


def draw_number(seed: int, hypothesis_index: int, position: int) -> float:
    """A number in [0, 1) that belongs to one position of one hypothesis."""
    generator = np.random.Philox(key=[seed, hypothesis_index], counter=position)
    return (int(generator.random_raw()) >> 11) / 2**53


def draw_token(scores: NDArray[np.float32], options: GenerateOptions, number: float) -> int:
    """Picks a token of one hypothesis.

    Tokens come in the order of descending probability, of equals the lower one first. The one is
    taken where the sum of probabilities exceeds ``number``.

    Args:
        scores: [V], logits or log-probabilities; barred tokens are minus infinity, the best is
            finite.
        options: Temperature, ``top_k`` and ``top_p``.
        number: In [0, 1).
    """
    size = scores.size
    with np.errstate(over="ignore"):  # beyond the range of floats lies minus infinity
        shifted = (scores.astype(np.float64) - float(scores.max())) / options.temperature
    weights = np.exp(shifted)
    if 0 < options.top_k < size:
        weights[scores < np.partition(scores, size - options.top_k)[size - options.top_k]] = 0.0
    total = float(weights.sum())
    for num_sorted in (min(_FIRST_LOOK, size), size):
        order = _sort(scores, num_sorted)
        sums = np.cumsum(weights[order])
        mass = total
        if options.top_p < 1.0:
            limit = options.top_p * total
            if sums[-1] < limit and num_sorted < size:
                continue
            # The token that reaches the limit still belongs to them.
            sums = sums[: 1 + int(np.searchsorted(sums, limit))]
            mass = float(sums[-1])
        index = int(np.searchsorted(sums, number * mass, side="right"))
        if index < len(sums):
            return int(order[index])
    # Rounding left the number beyond the last sum: it means the last token that is possible.
    return int(order[np.count_nonzero(weights[order[: len(sums)]]) - 1])


def _sort(scores: NDArray[np.float32], num_sorted: int) -> NDArray[np.int64]:
    """The best tokens, best first: ``num_sorted`` and those as good as the last of them.

    Of equals the lower token comes first.
    """
    threshold = np.partition(scores, scores.size - num_sorted)[scores.size - num_sorted]
    best = np.flatnonzero(scores >= threshold)
    # Numbers that ascend as scores descend, tokens as their last digits: a plain sort of integers
    # is 20 times as fast as a stable one of floats. Adding 0 makes one zero of two.
    bits = (scores[best] + np.float32(0)).view(np.uint32)
    descending = np.where(bits >> 31, bits, ~bits & np.uint32(2**31 - 1)).astype(np.uint64)
    keys = descending << np.uint64(32) | best.astype(np.uint64)
    keys.sort()
    return (keys & np.uint64(2**32 - 1)).astype(np.int64)
