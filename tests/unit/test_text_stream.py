"""Text that is streamed piece by piece."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqserve.text_stream import TextStream
from seqserve.tokenizer import Tokenizer
from tiny_tokenizers import (
    ADDING,
    make_byte_fallback,
    make_bytes,
    make_rewriting,
    make_suffixes,
    make_words,
    open_adding,
    save,
)


@pytest.fixture
def words(tmp_path: Path) -> Tokenizer:
    """A tokenizer of words."""
    return save(make_words(), tmp_path)


@pytest.fixture(scope="session")
def single_bytes(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer of bytes."""
    return save(make_bytes(), tmp_path_factory.mktemp("bytes"))


def stream(tokenizer: Tokenizer, ids: list[int], cuts: list[int]) -> list[str]:
    """The pieces of text when ids come in portions of the given sizes, the rest last."""
    text_stream = TextStream(tokenizer)
    pieces, position = [], 0
    for size in [*cuts, len(ids)]:
        pieces.append(text_stream.push(ids[position : position + size]))
        position += size
    return [*pieces, text_stream.finish(tokenizer.decode(ids))]


@settings(max_examples=100)
@given(
    text=st.text(alphabet=st.sampled_from("aé 日本𝄞👩‍🚀\n"), max_size=8),
    cuts=st.lists(st.integers(0, 3), max_size=20),
)
def test_pieces_join_to_the_text(text: str, cuts: list[int], single_bytes: Tokenizer) -> None:
    """Whatever the portions, the pieces are the text, and no character comes in halves."""
    pieces = stream(single_bytes, single_bytes.encode(text), cuts)
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


SIZES = st.lists(st.integers(0, 3), max_size=9)


@pytest.fixture(scope="session", params=ADDING)
def adding(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer of each kind whose decoder only adds to what it said."""
    return open_adding(request.param, tmp_path_factory.mktemp("adding"))


@pytest.fixture(scope="session")
def rewriting(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer whose decoder changes what it said."""
    return save(make_rewriting(), tmp_path_factory.mktemp("rewriting"))


@settings(max_examples=200)
@given(data=st.data(), cuts=SIZES)
def test_pieces_of_any_ids_join_to_their_text(
    data: st.DataObject, cuts: list[int], adding: Tokenizer
) -> None:
    """A model may make up any ids, broken characters among them; the pieces join all the same.

    So no piece has a replacement character that the text does not have.
    """
    ids = data.draw(st.lists(st.integers(0, adding.vocabulary_size - 1), max_size=12))
    assert "".join(stream(adding, ids, cuts)) == adding.decode(ids)


@given(ids=st.lists(st.integers(0, 2), max_size=12), cuts=SIZES)
def test_pieces_are_text_of_first_ids_even_if_the_decoder_rewrites(
    ids: list[int], cuts: list[int], rewriting: Tokenizer
) -> None:
    """What was sent was the decoded text once, whatever becomes of it."""
    joined = "".join(stream(rewriting, ids, cuts))
    assert joined in {rewriting.decode(ids[:count]) for count in range(len(ids) + 1)}


def test_text_that_is_taken_back_ends_the_pieces(rewriting: Tokenizer) -> None:
    """They go on once the text continues the sent one; else the end of it is in the result only."""
    assert stream(rewriting, [0, 1, 2], [1, 1, 1]) == ["a", " ", "", "", ""]
    text_stream = TextStream(rewriting)
    assert [text_stream.push([token]) for token in (0, 1, 2, 1)] == ["a", " ", "", ""]
    assert text_stream.finish("a b") == "b"


def test_run_of_bytes_waits_for_its_end(tmp_path: Path) -> None:
    """One wrong byte makes replacements of the whole run, so no byte of it is text before."""
    tokenizer = save(make_byte_fallback(), tmp_path)
    right, wrong = TextStream(tokenizer), TextStream(tokenizer)
    # ids: 0 </s>, 3 b, 4 A, 6 FF, 7 E6, 8 97, 9 A5
    assert [right.push([token]) for token in (3, 4, 7, 8, 9, 0, 3)] == ["b", *[""] * 5, "A日b"]
    assert [wrong.push([token]) for token in (3, 4, 0, 6, 3)] == ["b", "", "", "", "\ufffd\ufffdb"]


def test_character_waits_for_its_last_byte(single_bytes: Tokenizer) -> None:
    """The bytes of one character give nothing until the last of them is there."""
    text_stream = TextStream(single_bytes)
    pieces = [text_stream.push([token]) for token in single_bytes.encode("a👩b")]
    assert pieces == ["a", "", "", "", "👩", "b"]


def test_half_a_character_at_the_end_is_told_at_the_end(single_bytes: Tokenizer) -> None:
    """If the last character never becomes complete, its replacement comes with the rest."""
    ids = single_bytes.encode("aé")[:2]
    assert stream(single_bytes, ids, []) == ["", "a\ufffd"]


def test_words_come_with_the_space_before_them(words: Tokenizer) -> None:
    """Spaces between words belong to the later piece; special tokens give no text."""
    assert stream(words, [4, 5, 2, 0], [1, 1, 1]) == ["a", " b", "", "", ""]


def test_decoder_that_strips_the_end_is_followed(tmp_path: Path) -> None:
    """A decoder that treats the last token differently still gives pieces that join."""
    assert stream(save(make_suffixes(), tmp_path), [0, 1, 2], [1, 1]) == ["a", " b", "c", ""]


def test_text_that_decoding_may_replace_is_held_back(tmp_path: Path) -> None:
    """A space before punctuation goes when the punctuation is complete."""
    tokenizer = open_adding("sentencepiece cleaned", tmp_path)
    ids = [2, 4, 5, 6, 7, 9]  # at, space, n, ', t, .
    stream_of = TextStream(tokenizer)
    assert tokenizer.decode(ids) == "atn't."
    assert [stream_of.push([token]) for token in ids] == ["at", "", "", "", "n't", "."]
