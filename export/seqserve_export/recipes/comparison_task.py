"""What the variants learn: to pronounce phrases, or to read images of words.

Phrases have one to three words while training, and up to four in the test, so that there are
sources of any length, some longer than any that was trained on. No word is on both sides.
"""

import dataclasses
import random

from tokenizers import Tokenizer, models, pre_tokenizers

from seqserve_export.recipes.phrases import (
    GAP,
    draw_phrases,
    make_phrase_examples,
    make_phrase_tokenizers,
)
from seqserve_export.recipes.pronunciation_batch import Example
from seqserve_export.recipes.pronunciation_data import Dictionary, Split
from seqserve_export.recipes.pronunciation_tokenizer import make_target_tokenizer
from seqserve_export.variants.image_encoder import NUM_SPECIAL_TOKENS, VOCABULARY_SIZE
from seqserve_export.variants.lettering import LETTERS, render, to_text, to_tokens

MAX_LENGTH = 64
"""Of sources and targets of phrases, in tokens."""
TRAINED_WORDS = (1, 2, 3)
TESTED_WORDS = (1, 2, 3, 4)
MAX_RENDERED_LETTERS = 8
_TEST_SEED, _IMAGE_SEED = 2, 3


@dataclasses.dataclass(frozen=True)
class Question:
    """A source of the test."""

    text: str
    """As the server gets it."""
    num_letters: int
    """How long it is, gaps included."""
    example: Example


class Task:
    """Sources and targets with their tokenizers."""

    def __init__(self, split: Split, *, is_image: bool) -> None:
        """Makes the tokenizers.

        Args:
            split: The words.
            is_image: Whether to read images of words, rather than to pronounce phrases.
        """
        self._split = split
        self.is_image = is_image
        if is_image:
            self.source, self.target = make_column_tokenizer(), make_target_tokenizer([*LETTERS])
        else:
            self.source, self.target = make_phrase_tokenizers(split.train | split.test)

    @property
    def source_vocabulary_size(self) -> int:
        """Source tokens."""
        return self.source.get_vocab_size()

    @property
    def target_vocabulary_size(self) -> int:
        """V."""
        return self.target.get_vocab_size()

    def draw_examples(self, num_examples: int, seed: int) -> list[Example]:
        """Draws what to train on."""
        if self.is_image:
            questions = self._draw_images(self._split.train, num_examples, seed)
            return [question.example for question in questions]
        words = self._split.train
        phrases = draw_phrases(words, num_examples, TRAINED_WORDS, seed)
        return make_phrase_examples(phrases, words, self.source, self.target)

    def draw_questions(self, num_questions: int) -> list[Question]:
        """Draws what to test with, always the same."""
        words = self._split.test
        if self.is_image:
            return self._draw_images(words, num_questions, _TEST_SEED)
        phrases = draw_phrases(words, num_questions, TESTED_WORDS, _TEST_SEED)
        examples = make_phrase_examples(phrases, words, self.source, self.target)
        texts = [GAP.join(phrase) for phrase in phrases]
        return [Question(text, len(text), one) for text, one in zip(texts, examples, strict=True)]

    def _draw_images(self, words: Dictionary, num_images: int, seed: int) -> list[Question]:
        generator = random.Random(f"{_IMAGE_SEED}/{seed}")
        short = [word for word in words if len(word) <= MAX_RENDERED_LETTERS]
        return [
            self._draw_image(word, generator) for word in generator.choices(short, k=num_images)
        ]

    def _draw_image(self, word: str, generator: random.Random) -> Question:
        columns = render(word, generator)
        targets: list[list[int]] = [self.target.encode(" ".join(word)).ids]
        return Question(to_text(columns), len(word), Example(to_tokens(columns), targets))


def make_column_tokenizer() -> Tokenizer:
    """Makes the tokenizer of images: three hexadecimal digits are a column of pixels."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    assert len(special) == NUM_SPECIAL_TOKENS
    columns = [f"{number:03x}" for number in range(VOCABULARY_SIZE - NUM_SPECIAL_TOKENS)]
    vocabulary = {token: index for index, token in enumerate([*special, *columns])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer
