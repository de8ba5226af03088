"""Sampling picks from the distribution that the processors of ``transformers`` leave."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from seqserve.generate_options import GenerateOptions
from seqserve.sampling import draw_token

SETTINGS = [
    {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    for temperature, top_k, top_p in itertools.product(
        (0.4, 1.0, 1.9), (0, 1, 7, 500), (0.3, 0.9, 1)
    )
]


def processed(scores: NDArray[np.float32], settings: dict[str, Any]) -> NDArray[np.float64]:
    """The probabilities [V] that transformers samples from, in float64."""
    processors = LogitsProcessorList()
    if settings["temperature"] != 1:
        processors.append(TemperatureLogitsWarper(settings["temperature"]))
    if settings["top_k"]:
        processors.append(TopKLogitsWarper(settings["top_k"]))
    if settings["top_p"] < 1:
        processors.append(TopPLogitsWarper(settings["top_p"]))
    no_tokens: Any = torch.zeros(1, 1, dtype=torch.long)
    rows: Any = torch.tensor(scores[None])
    left = processors(no_tokens, rows)
    probabilities: NDArray[np.float64] = left[0].double().softmax(-1).numpy()
    return probabilities


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("is_tied", [False, True])
def test_draws_are_from_the_processed_distribution(settings: dict[str, Any], is_tied: bool) -> None:
    """The middle of each token's part of [0, 1) picks that token, and so nothing else is picked.

    With ties, too: logits rounded to quarters.
    """
    torch.set_num_threads(1)
    options = GenerateOptions(max_new_tokens=1, do_sample=True, **settings)
    generator = np.random.default_rng(5)
    for size in (5, 60, 400):
        scores = generator.normal(0, 2, size).astype(np.float32)
        if is_tied:
            scores = np.float32(0.25) * (4 * scores).round()
        probabilities = processed(scores, settings)
        order = np.argsort(scores, kind="stable")[::-1]
        ends = np.cumsum(probabilities[order])
        kept = np.flatnonzero(probabilities[order] > 1e-9)
        middles = (ends - probabilities[order] / 2)[kept]
        tokens = [draw_token(scores, options, float(number)) for number in middles]
        # Which of equals top_p keeps, torch.sort leaves open.
        assert scores[tokens].tolist() == scores[order[kept]].tolist()
        last = draw_token(scores, options, 1 - 2**-53)
        assert scores[last] in scores[np.flatnonzero(probabilities)]
        if not is_tied:
            assert tokens == order[kept].tolist()
