"""What the decode benchmark translates: seeded sentences of token ids, and when they arrive.

Lengths are skewed as those of real text are: log-normal, most of them short, a few long. Targets
have lengths near those of their sources, in multiples of 8, so that a peer that cannot end the rows
of a batch at lengths of their own gets batches of equal target length.
"""

import math
from collections import Counter
from collections.abc import Sequence as Items
from typing import NamedTuple

import numpy as np

END_TOKEN = 0
PAD_TOKEN = 584
"""Of the tokenizer that the checkpoint is made with; it starts targets, too."""
VOCABULARY_SIZE = 58101
_FIRST_WORD = 1000
_SHORTEST, _LONGEST, _MEAN_LENGTH, _SPREAD = 5, 80, 25, 0.55
_STEP = 8
"""Target lengths are its multiples."""


class MeasurementError(Exception):
    """A side did not do what was asked of it, so that its time says nothing."""


class Sentence(NamedTuple):
    """One request."""

    source: list[int]
    """Token ids, the end token included."""
    target_length: int
    """How many tokens are to be generated."""


def make_sentences(num_sentences: int, seed: int) -> list[Sentence]:
    """Sentences of 5 to 80 tokens, 25 on average."""
    rng = np.random.default_rng(seed)
    location = math.log(_MEAN_LENGTH) - _SPREAD**2 / 2
    lengths = np.rint(rng.lognormal(location, _SPREAD, num_sentences))
    lengths = np.clip(lengths, _SHORTEST, _LONGEST).astype(int)
    wanted = lengths * rng.normal(1.0, 0.15, num_sentences)
    targets = np.clip(np.rint(wanted / _STEP) * _STEP, _STEP, _LONGEST).astype(int)
    return [
        Sentence(_make_source(int(length), rng), int(target))
        for length, target in zip(lengths, targets, strict=True)
    ]


def make_equal_sentences(num_sentences: int, length: int, seed: int) -> list[Sentence]:
    """Sentences of one length, of sources and targets."""
    rng = np.random.default_rng(seed)
    return [Sentence(_make_source(length, rng), length) for _ in range(num_sentences)]


def _make_source(length: int, rng: np.random.Generator) -> list[int]:
    """Token ids: a word is about as frequent as the inverse of its rank (Zipf)."""
    ranks = np.exp(rng.uniform(0.0, math.log(VOCABULARY_SIZE - _FIRST_WORD), length - 1))
    return [*(_FIRST_WORD + ranks.astype(int) - 1).tolist(), END_TOKEN]


def most_common(sentences: Items[Sentence], num_sentences: int) -> list[Sentence]:
    """Sentences of the most common target lengths, whole groups first."""
    counts = Counter(sentence.target_length for sentence in sentences)
    order = {length: place for place, (length, _) in enumerate(counts.most_common())}
    return sorted(sentences, key=lambda sentence: order[sentence.target_length])[:num_sentences]


def make_arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Times at which requests of a Poisson process arrive, from 0 up to ``seconds``."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1.0 / rate, math.ceil(2 * rate * seconds) + 20)
    times = np.cumsum(gaps)
    return [float(time) for time in times[times < seconds]]


def check_targets(side: str, sentences: Items[Sentence], targets: Items[Items[int]]) -> None:
    """Checks that a side generated exactly the tokens asked for.

    Raises:
        MeasurementError: A target is missing, too short or too long.
    """
    if len(targets) != len(sentences):
        raise MeasurementError(f"{side} returned {len(targets)} targets for {len(sentences)}")
    for index, (sentence, target) in enumerate(zip(sentences, targets, strict=True)):
        if len(target) != sentence.target_length:
            raise MeasurementError(
                f"{side} generated {len(target)} tokens for sentence {index}, but "
                f"{sentence.target_length} were asked for"
            )


def num_target_tokens(sentences: Items[Sentence]) -> int:
    """Tokens to generate in all."""
    return sum(sentence.target_length for sentence in sentences)


def agreement(ours: Items[Items[int]], theirs: Items[Items[int]]) -> float:
    """The share of positions up to the first difference, the last token not counted.

    The model ends a target at its limit by the end token, which the peer does not know of.
    """
    num_equal = num_positions = 0
    for left, right in zip(ours, theirs, strict=True):
        pairs = list(zip(left[:-1], right[:-1], strict=True))
        num_positions += len(pairs)
        num_equal += next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    return num_equal / num_positions
