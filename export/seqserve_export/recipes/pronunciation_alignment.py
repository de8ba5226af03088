"""Which letter each phoneme came from, learned from the dictionary, and whether a model says so.

Phonemes follow their letters, so that there is an obvious alignment, which never goes back. It is
learned by turns: align every word as is likeliest, then count what came from what.
:mod:`seqserve_export.recipes.alignment_report` holds the alignment of the model against it.

Source: Vogel, Ney and Tillmann 1996, "HMM-based word alignment in statistical translation", with
jumps that go forward only, and Viterbi training.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from seqserve_export.alignment_choice import attend_cross
from seqserve_export.explain_graph import ExplainGraph
from seqserve_export.source import GenerationSource

Pair = tuple[str, tuple[str, ...]]
"""A word and its phonemes."""

_NUM_ROUNDS = 8
_MAX_JUMP = 3
"""Longer ones count as this."""
_SMOOTHING = 0.1


class MonotoneAligner:
    """Aligns phonemes to letters; each comes from one letter, never one before the last."""

    def __init__(self) -> None:
        self._sounds: dict[tuple[str, str], float] = {}
        self._jumps: dict[int, float] = {}

    def learn(self, pairs: Sequence[Pair], num_rounds: int = _NUM_ROUNDS) -> None:
        """Learns from words; at first letters and phonemes are taken to have one pace."""
        self._count(pairs, (_stretch(len(word), len(phonemes)) for word, phonemes in pairs))
        for _ in range(num_rounds):
            self._count(pairs, [self.align(*pair) for pair in pairs])

    def align(self, word: str, phonemes: Sequence[str]) -> list[int]:
        """The likeliest letter of each phoneme."""
        scores, origins = [0.0], [[-1]]
        places = [-1]
        for phoneme in phonemes:
            candidates = []
            for place, letter in enumerate(word):
                sound = self._sounds.get((letter, phoneme), math.log(_SMOOTHING / 1000))
                score, best = max(
                    (scores[index] + self._jumps[min(place - before, _MAX_JUMP)], index)
                    for index, before in enumerate(places)
                    if before <= place
                )
                candidates.append((score + sound, [*origins[best], place]))
            scores, origins = [score for score, _ in candidates], [path for _, path in candidates]
            places = list(range(len(word)))
        return max(zip(scores, origins, strict=True))[1][1:]

    def _count(self, pairs: Iterable[Pair], alignments: Iterable[Sequence[int]]) -> None:
        sounds = collections.Counter[tuple[str, str]]()
        jumps = collections.Counter[int](dict.fromkeys(range(_MAX_JUMP + 1), 1))
        for (word, phonemes), alignment in zip(pairs, alignments, strict=True):
            sounds.update(
                (word[place], one) for place, one in zip(alignment, phonemes, strict=True)
            )
            steps = zip([-1, *alignment], alignment, strict=False)
            jumps.update(min(place - before, _MAX_JUMP) for before, place in steps)
        letters = collections.Counter[str]()
        for (letter, _), number in sounds.items():
            letters[letter] += number
        self._sounds = {
            pair: math.log((number + _SMOOTHING) / (letters[pair[0]] + 1))
            for pair, number in sounds.items()
        }
        self._jumps = {
            jump: math.log(number / jumps.total()) for jump, number in sorted(jumps.items())
        }


def _stretch(num_letters: int, num_phonemes: int) -> list[int]:
    return [place * num_letters // num_phonemes for place in range(num_phonemes)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentScore:
    """How a model aligns, as shares of the phonemes."""

    num_phonemes: int
    error_rate: float
    """Not from the letter of the obvious alignment."""
    far_error_rate: float
    """Not from that letter, nor from one beside it."""
    backward_rate: float
    """From a letter before that of the phoneme before."""

    def __str__(self) -> str:
        """In one line."""
        return (
            f"{self.num_phonemes:,} phonemes: {self.error_rate:.1%} from another letter, "
            f"{self.far_error_rate:.1%} from one that is not beside it, "
            f"{self.backward_rate:.1%} backward"
        )


def score_alignments(
    expected: Iterable[Sequence[int]], found: Iterable[Sequence[int]]
) -> AlignmentScore:
    """Compares alignments, word by word."""
    num_phonemes = num_other = num_far = num_backward = 0
    for wanted, places in zip(expected, found, strict=True):
        distances = [abs(one - other) for one, other in zip(wanted, places, strict=True)]
        num_phonemes += len(distances)
        num_other += sum(distance > 0 for distance in distances)
        num_far += sum(distance > 1 for distance in distances)
        num_backward += sum(place < before for before, place in itertools.pairwise(places))
    return AlignmentScore(
        num_phonemes=num_phonemes,
        error_rate=num_other / num_phonemes,
        far_error_rate=num_far / num_phonemes,
        backward_rate=num_backward / num_phonemes,
    )


@torch.inference_mode()
def attend_to_letters(source: GenerationSource, pairs: Iterable[Pair]) -> list[Tensor]:
    """What the model gives to each letter when it writes each phoneme: [L, H, T, S] of each word.

    It is told the phonemes, so that there is one right answer.
    """
    graph = ExplainGraph(source.model).eval()
    assert source.target_tokenizer is not None
    start = source.generation.decoder_start_token_id
    weights = []
    for word, phonemes in pairs:
        target = source.target_tokenizer.encode(" ".join(phonemes), add_special_tokens=False).ids
        whole = attend_cross(graph, source.encode(word), [start, *target[:-1]])
        weights.append(whole[..., : len(word)])  # the end token is last
    return weights
