"""Words next to each other, so that there are sources of any length, with their pronunciations."""

import itertools
import random
from collections.abc import Sequence

from tokenizers import Tokenizer

from seqserve_export.recipes.pronunciation_batch import Example
from seqserve_export.recipes.pronunciation_data import Dictionary, list_phonemes
from seqserve_export.recipes.pronunciation_tokenizer import (
    make_source_tokenizer,
    make_target_tokenizer,
)

GAP = " "
"""Between two words."""
PAUSE = "/"
"""Between two pronunciations."""
MAX_LETTERS = 60
"""Of a phrase; so it fits 64 positions with its end token."""
_MAX_PRONUNCIATIONS = 16

Phrase = tuple[str, ...]
"""Words."""


def make_phrase_tokenizers(dictionary: Dictionary) -> tuple[Tokenizer, Tokenizer]:
    """Makes the tokenizers of letters with gaps, and of phonemes with pauses."""
    source = make_source_tokenizer(GAP)
    return source, make_target_tokenizer([*list_phonemes(dictionary), PAUSE])


def draw_phrases(
    dictionary: Dictionary, num_phrases: int, nums_words: Sequence[int], seed: int
) -> list[Phrase]:
    """Draws phrases of words by chance, of each number of words about as many."""
    generator = random.Random(seed)
    words = list(dictionary)
    phrases: list[Phrase] = []
    while len(phrases) < num_phrases:
        phrase = tuple(generator.choices(words, k=generator.choice(nums_words)))
        if len(GAP.join(phrase)) <= MAX_LETTERS:
            phrases.append(phrase)
    return phrases


def make_phrase_examples(
    phrases: Sequence[Phrase], dictionary: Dictionary, source: Tokenizer, target: Tokenizer
) -> list[Example]:
    """Makes one example a phrase; its pronunciations are those of its words in every way."""
    return [
        Example(
            source.encode(GAP.join(phrase)).ids,
            [target.encode(text).ids for text in pronounce_phrase(phrase, dictionary)],
        )
        for phrase in phrases
    ]


def pronounce_phrase(phrase: Phrase, dictionary: Dictionary) -> list[str]:
    """The listed pronunciations of a phrase, at most sixteen."""
    ways = itertools.product(*(dictionary[word] for word in phrase))
    return [
        f" {PAUSE} ".join(" ".join(phonemes) for phonemes in way)
        for way in itertools.islice(ways, _MAX_PRONUNCIATIONS)
    ]
