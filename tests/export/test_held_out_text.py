"""Which texts a model is judged on.

The invariant: never one that it was calibrated on, and each once.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from seqserve_export.calibration_text import CalibrationTexts, choose_texts, read_built_in_texts
from seqserve_export.held_out_text import (
    ENOUGH_TEXTS,
    MAX_HELD_OUT,
    choose_held_out,
    read_documentation,
    read_held_out_texts,
    split_given,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Bytes, which no text is unknown to."""
    vocabulary = {letter: index for index, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    return tokenizer


@settings(deadline=None, max_examples=8)
@given(
    num_given=st.sampled_from([0, 1, 49, 50, 90, 260, 700, 1500]),
    num_repeated=st.integers(0, 400),
    data=st.data(),
)
def test_no_text_is_on_both_sides(
    tokenizer: Tokenizer, num_given: int, num_repeated: int, data: st.DataObject
) -> None:
    """However many are given, and however often; and no text is judged by twice."""
    given = [f"text {number}" for number in range(num_given)]
    given += given[:num_repeated]
    given += data.draw(st.lists(st.sampled_from(read_held_out_texts()), max_size=3))
    chosen, others = split_given(given, choose_texts(given, [], tokenizer))
    held_out = choose_held_out(others, chosen.texts, tokenizer)
    assert chosen.texts
    assert not set(held_out.texts) & set(chosen.texts)
    assert len(set(held_out.texts)) == len(held_out.texts)
    assert ENOUGH_TEXTS <= len(held_out.texts) <= MAX_HELD_OUT
    assert set(chosen.texts) | set(others) <= set(given) or not given


def test_a_fifth_of_given_texts_is_held_out() -> None:
    """Calibration goes without them, and both say how many they are of."""
    given = [f"text {number}" for number in range(100)]
    chosen, others = split_given(given, CalibrationTexts(tuple(given), "100 texts given"))
    assert others == tuple(given[4::5])
    assert (len(chosen.texts), chosen.origin) == (80, "80 of 100 texts given")
    few = CalibrationTexts(tuple(given[:49]), "49 texts given")
    assert split_given(given[:49], few) == (few, ())
    assert split_given((), few) == (few, ())


def test_what_calibration_leaves_is_held_out() -> None:
    """It then loses none of its texts."""
    given = [f"text {number}" for number in range(800)]
    taken = CalibrationTexts(tuple(given[:512]), "512 of 800 texts given")
    chosen, others = split_given(given, taken)
    assert chosen == taken
    assert others == tuple(given[512:])


def test_many_given_texts_need_no_others(tokenizer: Tokenizer) -> None:
    """The domain that is served is all that counts then; few are joined by general ones."""
    given = [f"text {number}" for number in range(ENOUGH_TEXTS)]
    alone = choose_held_out(given, (), tokenizer)
    assert alone == CalibrationTexts(tuple(given), "200 texts given")
    joined = choose_held_out(given[:20], (), tokenizer)
    assert joined.texts[:20] == tuple(given[:20])
    assert joined.origin.startswith("20 texts given, ")
    assert joined.origin.endswith(" sentences of Python's documentation")
    assert len(joined.texts) == MAX_HELD_OUT


def test_built_in_texts_are_not_those_of_calibration() -> None:
    """Two lists of different sentences, in as many scripts."""
    held_out, calibration = read_held_out_texts(), read_built_in_texts()
    assert not set(held_out) & set(calibration)
    assert len(set(held_out)) == len(held_out) >= 90
    assert all(text.strip() == text != "" for text in held_out)
    scripts = {ord(letter) >> 8 for text in calibration for letter in text if letter.isalpha()}
    covered = {ord(letter) >> 8 for text in held_out for letter in text if letter.isalpha()}
    # Of the thousands of Chinese letters no two texts have the same; the others are in both.
    assert {block for block in scripts if not 0x30 <= block < 0xD8} <= covered


def test_documentation_is_sentences() -> None:
    """More than are needed, of four to forty words, in the same order every time."""
    sentences = read_documentation()
    assert len(sentences) >= 2 * MAX_HELD_OUT
    assert len(set(sentences)) == len(sentences)
    assert all(4 <= len(sentence.split()) <= 40 for sentence in sentences)
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
    read_documentation.cache_clear()
    assert sentences == read_documentation()


def test_unreadable_texts_are_left_out() -> None:
    """A tokenizer that knows none of them is judged on none of them."""
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "cat": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert choose_held_out((), (), words) == CalibrationTexts((), "")
