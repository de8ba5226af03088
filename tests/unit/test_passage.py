"""Texts, windows and pairs within a length, against the truncation of ``tokenizers``."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, processors

from seqserve.errors import InvalidRequestError
from seqserve.passage import PairReader, Side, read_text, read_texts, read_windows
from seqserve.tokenizer import Tokenizer

LETTERS = "abcdefgh"


def make_library() -> Library:
    """A letter a token, with special tokens around texts and pairs."""
    vocabulary = {token: index for index, token in enumerate(["[CLS]", "[SEP]", *LETTERS])}
    library = Library(models.WordLevel(vocabulary, unk_token="a"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 0), ("[SEP]", 1)],
    )
    return library


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Ours over the same file."""
    path: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    make_library().save(str(path))
    return Tokenizer(path)


texts = st.lists(st.sampled_from(LETTERS), max_size=40).map(" ".join)
sides = st.sampled_from(["right", "left"])


@given(first=texts, second=texts, length=st.integers(3, 50), side=sides)
def test_pairs_are_cut_longest_first(
    tokenizer: Tokenizer, first: str, second: str, length: int, side: Side
) -> None:
    """Tokens and types are those of the library, for any lengths; what was cut is counted."""
    library = make_library()
    whole = len(library.encode(first, second).ids)
    library.enable_truncation(length, strategy="longest_first", direction=side)
    expected = library.encode(first, second)
    passage = PairReader(tokenizer, first, length, side).read(second)
    assert passage.tokens == tuple(expected.ids)
    assert passage.types == tuple(expected.type_ids)
    assert passage.num_truncated == whole - len(expected.ids)


@given(text=texts, length=st.integers(2, 50), side=sides)
def test_texts_are_cut_on_a_side(tokenizer: Tokenizer, text: str, length: int, side: Side) -> None:
    """Tokens and places are those of the library."""
    library = make_library()
    library.enable_truncation(length, direction=side)
    expected = library.encode(text)
    passage = read_text(tokenizer, text, length, side)
    assert passage.tokens == tuple(expected.ids)
    places = zip(expected.offsets, expected.special_tokens_mask, strict=True)
    assert passage.offsets == tuple(None if special else place for place, special in places)


@given(many=st.lists(texts, max_size=5), length=st.integers(2, 50), side=sides)
def test_several_texts_are_read_as_each_alone(
    tokenizer: Tokenizer, many: list[str], length: int, side: Side
) -> None:
    """Nothing but the places of tokens is left out."""
    passages = list(read_texts(tokenizer, many, length, side))
    assert passages == [
        dataclasses.replace(read_text(tokenizer, text, length, side), offsets=()) for text in many
    ]


@given(text=texts, length=st.integers(3, 20), data=st.data())
def test_windows_cover_a_text(
    tokenizer: Tokenizer, text: str, length: int, data: st.DataObject
) -> None:
    """They are the library's, as many as were announced, and join to the text."""
    stride = data.draw(st.integers(0, length - 3))
    library = make_library()
    library.enable_truncation(length, stride=stride)
    expected = library.encode(text)
    counts: list[int] = []
    windows = read_windows(tokenizer, text, length, stride, counts.append)
    assert [window.tokens for window in windows] == [
        tuple(one.ids) for one in (expected, *expected.overflowing)
    ]
    assert counts == [len(windows)]
    places = {place for window in windows for place in window.offsets if place is not None}
    assert [text[start:end] for start, end in sorted(places)] == text.split()


def test_no_room_for_special_tokens_is_refused(tokenizer: Tokenizer) -> None:
    """A pair needs more than a text."""
    assert read_text(tokenizer, "a", 2).tokens == (0, 1)
    with pytest.raises(InvalidRequestError, match="no text fits into 1 tokens: 2 special tokens"):
        read_text(tokenizer, "a", 1)
    with pytest.raises(InvalidRequestError, match="no pair of texts fits into 2 tokens: 3 special"):
        PairReader(tokenizer, "a", 2, "right")


def test_what_is_cut_of_a_query_is_not_kept(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be copied with each of its pairs."""
    framed: list[Any] = []
    whole = tokenizer.frame

    def frame(plain: Any, pair: Any = None) -> Any:
        framed.append(plain)
        return whole(plain, pair)

    monkeypatch.setattr(tokenizer, "frame", frame)
    reader = PairReader(tokenizer, "a b c d " * 500, 8, "right")
    passages = [reader.read("a b"), reader.read("a b c d e f g h")]
    assert [len(passage.tokens) for passage in passages] == [8, 8]
    assert [passage.num_truncated for passage in passages] == [1997, 2003]
    assert all(len(plain.overflowing) <= 1 for plain in framed)
