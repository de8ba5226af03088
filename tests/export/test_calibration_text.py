"""Which texts a model is calibrated on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from seqserve_export.calibration_text import (
    MAX_TEXTS,
    choose_readable,
    choose_texts,
    make_random_sources,
    read_built_in_texts,
    read_texts,
    spread,
)
from seqserve_export.errors import CheckpointError
from seqserve_export.recipes.pronunciation_tokenizer import make_source_tokenizer
from seqserve_export.samples import SAMPLES

ENGLISH = tuple(text for text in read_built_in_texts() if text.isascii())


def train_word_pieces(texts: tuple[str, ...]) -> Tokenizer:
    """A tokenizer of word pieces made for some texts, which knows no letters of others."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=900, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train_bytes(texts: tuple[str, ...]) -> Tokenizer:
    """A tokenizer of bytes that no text is unknown to."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.mark.parametrize("train", [train_word_pieces, train_bytes])
def test_built_in_texts_are_those_of_the_language(
    train: Callable[[tuple[str, ...]], Tokenizer],
) -> None:
    """A tokenizer of English takes English sentences, whatever it does with other scripts."""
    chosen = choose_readable(read_built_in_texts(), train(ENGLISH))
    # Training breaks ties as it happens, so that a sentence may come out in a token too many.
    assert len(set(chosen) & set(ENGLISH[:10])) >= 8
    assert not [text for text in chosen if any(letter > "\u036f" for letter in text)]


def test_letters_are_read_by_tokenizers_of_letters() -> None:
    """One token a letter is right for a tokenizer that has no others."""
    tokenizer = make_source_tokenizer()
    assert choose_readable(["onomatopoeia", "東京は日本", "42"], tokenizer) == ("onomatopoeia",)


def test_order_of_choice() -> None:
    """Given texts, then the checkpoint's, then built-in ones, if the tokenizer reads any."""
    words = make_source_tokenizer()
    given = choose_texts(["a", "b"], ["c"], words)
    assert (given.texts, given.origin) == (("a", "b"), "2 texts given")
    own = choose_texts([], ["c", "d", "e"], words, max_texts=2)
    assert (own.texts, own.origin) == (("c", "d"), "2 samples of the checkpoint")
    pieces = train_word_pieces(ENGLISH)
    built_in = choose_texts([], SAMPLES, pieces)
    assert built_in.origin == f"{len(built_in.texts)} built-in texts"
    assert len(built_in.texts) >= 20
    assert choose_texts([], SAMPLES, words).texts == ()
    sources, origin = make_random_sources(30, 10)
    assert origin == f"{len(sources)} sources of random tokens"
    assert max(map(len, sources)) == 10


def test_many_texts_are_spread() -> None:
    """Of more texts than can be used some are taken, and the report says so."""
    texts = ["a" * (1 + index) for index in range(2 * MAX_TEXTS)]
    chosen = choose_texts(texts, [], make_source_tokenizer())
    assert chosen.texts == tuple(texts[::2])
    assert chosen.origin == "512 of 1,024 texts given"
    assert spread([], 5) == ()


def test_unknown_texts_are_refused() -> None:
    """Ranges chosen on unknown tokens would be those of no text that is served."""
    with pytest.raises(CheckpointError) as caught:
        choose_texts(["東京", "Привет"], [], make_source_tokenizer())
    assert str(caught.value) == (
        "each of the 2 texts to calibrate with has more than 10% unknown tokens; give texts in a "
        "language of the model"
    )


def test_files_are_read_by_lines(tmp_path: Path) -> None:
    """With or without a byte order mark, and without blank lines."""
    file = tmp_path / "texts.txt"
    file.write_bytes("\ufeffGrüße\n\n  \nb c\r\n".encode())
    assert read_texts(file) == ("Grüße", "b c")


def test_files_that_hold_no_text_are_refused(tmp_path: Path) -> None:
    """Each with what to do about it."""
    file = tmp_path / "texts.txt"
    file.write_bytes(b"\n \n")
    with pytest.raises(CheckpointError) as empty:
        read_texts(file)
    assert str(empty.value) == (
        f"{file} holds no text to calibrate with; write one text a line, or leave --calibration out"
    )
    file.write_bytes(b"one\ntwo\nGr\xfc\xdfe\n")
    with pytest.raises(CheckpointError) as latin:
        read_texts(file)
    assert str(latin.value) == f"{file} is not UTF-8 in line 3 (byte 10); save it as UTF-8"
    with pytest.raises(CheckpointError, match=r"absent\.txt cannot be read: No such file"):
        read_texts(tmp_path / "absent.txt")
