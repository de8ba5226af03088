"""How good pronunciations are: phoneme and word error rate."""

import dataclasses
from collections.abc import Sequence

from seqserve_export.checkpoint import GenerationConfig
from seqserve_export.recipes.decoding import decode_all
from seqserve_export.recipes.pronunciation_batch import Example
from seqserve_export.transformer import Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class PronunciationScore:
    """Errors over a set of words."""

    phoneme_error_rate: float
    """Edits to the closest listed pronunciation, as a share of the phonemes of those."""
    word_error_rate: float
    """Share of words whose prediction is none of the listed pronunciations."""

    def __str__(self) -> str:
        """Reads like ``PER 5.12 %, WER 22.80 %``."""
        return f"PER {self.phoneme_error_rate:.2%}, WER {self.word_error_rate:.2%}".replace(
            "%", " %"
        )


def evaluate(
    model: Transformer,
    examples: Sequence[Example],
    generation: GenerationConfig,
    *,
    num_beams: int,
) -> PronunciationScore:
    """Decodes every word with the model and scores the result.

    The model is in evaluation mode while decoding, and returns to the mode it was in.
    """
    was_training = model.training
    model.eval()
    predictions = decode_all(
        model, [example.source for example in examples], generation, num_beams=num_beams
    )
    model.train(was_training)
    return score_predictions(predictions, [example.targets for example in examples])


def score_predictions(
    predictions: Sequence[Sequence[object]], listed: Sequence[Sequence[Sequence[object]]]
) -> PronunciationScore:
    """Compares each prediction with the listed pronunciations of its word.

    Of equally close pronunciations the first listed counts.
    """
    num_edits = num_phonemes = num_wrong = 0
    for prediction, pronunciations in zip(predictions, listed, strict=True):
        edits, closest = min(
            ((count_edits(prediction, target), target) for target in pronunciations),
            key=lambda pair: pair[0],
        )
        num_edits += edits
        num_phonemes += len(closest)
        num_wrong += edits > 0
    return PronunciationScore(
        phoneme_error_rate=num_edits / num_phonemes, word_error_rate=num_wrong / len(predictions)
    )


def count_edits(first: Sequence[object], second: Sequence[object]) -> int:
    """Counts the insertions, deletions and substitutions from one sequence to another.

    Source: Levenshtein distance, Wagner and Fischer 1974.
    """
    previous = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        current = [row]
        for column, right in enumerate(second, start=1):
            current.append(
                min(
                    previous[column] + 1,
                    current[column - 1] + 1,
                    previous[column - 1] + (left != right),
                )
            )
        previous = current
    return previous[-1]
