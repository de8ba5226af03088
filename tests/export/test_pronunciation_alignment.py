"""The obvious alignment of letters and phonemes, and how a model's is held against it."""

import itertools
from pathlib import Path

import pytest
import torch

from seqserve_export.alignment_choice import CRITERION, align, choose_alignment
from seqserve_export.explain_graph import ExplainGraph
from seqserve_export.recipes.alignment_report import choose_pairs, score_heads
from seqserve_export.recipes.pronunciation_alignment import (
    MonotoneAligner,
    Pair,
    attend_to_letters,
    score_alignments,
)
from seqserve_export.recipes.pronunciation_data import read_dictionary, split_words
from seqserve_export.source import GenerationSource
from seqserve_export.source_folder import read_source_folder

CHECKPOINT = Path(__file__).parents[2] / "export" / "checkpoints" / "g2p-en"
SOUNDS = {"b": "B", "a": "AE", "t": "T", "k": "K", "o": "AA", "x": "K S", "e": ""}


def make_pairs() -> list[Pair]:
    """Words of four letters: x is two sounds, e is silent."""
    words = ("".join(letters) for letters in itertools.product(SOUNDS, repeat=4))
    pairs = ((word, tuple(" ".join(SOUNDS[one] for one in word).split())) for word in words)
    return [(word, phonemes) for word, phonemes in pairs if phonemes]


def test_aligner_learns_which_letters_sound() -> None:
    """Though none of the words says which is which, and most have fewer sounds or more."""
    pairs = make_pairs()
    aligner = MonotoneAligner()
    aligner.learn(pairs)
    expected = [
        [place for place, letter in enumerate(word) for _ in SOUNDS[letter].split()]
        for word, _ in pairs
    ]
    score = score_alignments(expected, [aligner.align(*pair) for pair in pairs])
    # Of two equal letters side by side nobody can tell which one sounds.
    assert score.error_rate < 0.15
    assert score.far_error_rate < 0.05
    assert score.backward_rate == 0
    assert aligner.align("bako", ("B", "AE", "K", "AA")) == [0, 1, 2, 3]


def test_scores_are_shares_of_the_phonemes() -> None:
    """Wrong, wrong by more than a letter, and backward."""
    score = score_alignments([[0, 1, 2], [0]], [[0, 2, 0], [0]])
    assert (score.num_phonemes, score.error_rate, score.far_error_rate) == (4, 0.5, 0.25)
    assert score.backward_rate == 0.25
    assert str(score) == (
        "4 phonemes: 50.0% from another letter, 25.0% from one that is not beside it, "
        "25.0% backward"
    )


@pytest.fixture(scope="module")
def shipped() -> GenerationSource:
    """The model that we ship."""
    torch.set_num_threads(1)
    source = read_source_folder(CHECKPOINT, is_pickle_allowed=False)
    assert isinstance(source, GenerationSource)
    return source


def test_chosen_heads_tell_letters_of_other_words(shipped: GenerationSource) -> None:
    """Chosen on samples without any alignment, held against one on words that nobody trained on.

    The report has 7.7 % and 13.4 % on more words.
    """
    record = choose_alignment(shipped, ExplainGraph(shipped.model))
    assert record is not None
    assert (record.criterion, record.count) == (CRITERION, 256)
    split = split_words(read_dictionary(), num_test=6000, num_valid=2500, seed=1)
    held_out = choose_pairs(split.test, 60)
    assert not {word for word, _ in held_out} & set(shipped.samples)
    aligner = MonotoneAligner()
    aligner.learn(choose_pairs(split.train, 3000), num_rounds=4)
    expected = [aligner.align(*pair) for pair in held_out]
    weights = attend_to_letters(shipped, held_out)
    chosen = score_heads(expected, weights, record.heads)
    last = score_heads(expected, weights, [(1, head) for head in range(4)])
    assert chosen.num_phonemes > 350
    assert chosen.error_rate < 0.095
    assert chosen.error_rate < 0.8 * last.error_rate
    assert chosen.far_error_rate < 0.02


def test_heads_of_a_word_that_can_be_checked_by_eye(shipped: GenerationSource) -> None:
    """Each phoneme of "kilo" comes from its letter."""
    (weights,) = attend_to_letters(shipped, [("kilo", ("K", "IH", "L", "OW"))])
    assert align(weights, [(0, 2), (1, 0), (1, 3)]).tolist() == [0, 1, 2, 3]
