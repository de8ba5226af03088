"""What each word of a target came from, made of what its tokens came from."""

import dataclasses
from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from seqserve.client.alignment_unit import number_units, split_units
from seqserve.client.results import Alignment, Token

_NOTHING = -1


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class WordAlignment:
    """An alignment of words between white space. S source words, T target words."""

    source_words: tuple[str, ...]
    target_words: tuple[str, ...]
    source_indices: tuple[int, ...]
    """The source word of each target word; -1 where no token of a word came from one."""
    weights: NDArray[np.float32]
    """[T, S]; what a row lacks of 1 went to special tokens."""


def align_words(alignment: Alignment, texts: tuple[str, str]) -> WordAlignment:
    """Adds up the tokens of each source word, and takes the mean of those of each target word.

    Args:
        alignment: Of a hypothesis.
        texts: Its source and its target.
    """
    source_spans, target_spans = (split_units(text, "words") for text in texts)
    sources = _assign(alignment.source_tokens, source_spans)
    targets = _assign(alignment.target_tokens, target_spans)
    counts = np.maximum(targets.sum(axis=0), 1)
    weights = (targets / counts).T @ alignment.weights @ sources
    return WordAlignment(
        source_words=_cut(texts[0], source_spans),
        target_words=_cut(texts[1], target_spans),
        source_indices=tuple(int(row.argmax()) if row.any() else _NOTHING for row in weights),
        weights=weights,
    )


def _assign(tokens: Items[Token], spans: Items[tuple[int, int]]) -> NDArray[np.float32]:
    """1 where a token is of a word, [tokens, words]."""
    members = np.zeros((len(tokens), len(spans)), np.float32)
    for token, numbers in enumerate(number_units(tokens, spans, "words")):
        members[token, numbers] = 1.0
    return members


def _cut(text: str, spans: Items[tuple[int, int]]) -> tuple[str, ...]:
    return tuple(text[start:end] for start, end in spans)
