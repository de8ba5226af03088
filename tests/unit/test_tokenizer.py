"""The tokenizer: truncation and offsets."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.errors import InvalidRequestError, ModelFolderError
from seqserve.tokenizer import Tokenizer, TokenSpan
from tiny_tokenizers import make_bytes, make_words, save


@pytest.fixture
def words(tmp_path: Path) -> Tokenizer:
    """A tokenizer of words."""
    return save(make_words(), tmp_path)


@pytest.fixture(scope="session")
def single_bytes(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer of bytes."""
    return save(make_bytes(), tmp_path_factory.mktemp("bytes"))


def test_encoding_adds_special_tokens(words: Tokenizer) -> None:
    """A text gets its start and end token; decoding leaves them out again."""
    assert words.encode("a b x") == [1, 4, 5, 3, 2]
    assert words.decode([1, 4, 5, 2, 0]) == "a b"
    assert (words.vocabulary_size, words.num_added_tokens) == (8, 2)


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [
        (9, ([1, 4, 5, 6, 7, 2], 0)),
        (6, ([1, 4, 5, 6, 7, 2], 0)),
        (5, ([1, 4, 5, 6, 2], 1)),
        (3, ([1, 4, 2], 3)),
        (2, ([1, 2], 4)),
    ],
)
def test_truncation_keeps_special_tokens(
    max_length: int, expected: tuple[list[int], int], words: Tokenizer
) -> None:
    """Only tokens of the text are cut, at its end, and they are counted."""
    assert words.encode_truncated("a b c d", max_length) == expected


@pytest.mark.parametrize("max_length", [0, 1])
@pytest.mark.parametrize("text", ["", "a b c d"])
def test_length_without_room_for_special_tokens_is_refused(
    text: str, max_length: int, words: Tokenizer
) -> None:
    """Neither more tokens than were asked for come back, nor a text without its end token."""
    with pytest.raises(InvalidRequestError) as caught:
        words.encode_truncated(text, max_length)
    assert str(caught.value) == (
        f"no text fits into {max_length} tokens: 2 special tokens are added to every text; use "
        "another model, or token ids if the method takes them"
    )


@given(text=st.text(max_size=20))
def test_text_that_fits_is_encoded_as_ever(text: str, single_bytes: Tokenizer) -> None:
    """Where nothing is cut, truncation changes nothing."""
    assert single_bytes.encode_truncated(text, 1000) == (single_bytes.encode(text), 0)


def test_spans_tell_where_tokens_stand(words: Tokenizer) -> None:
    """Offsets count characters; special tokens are marked and take no room."""
    assert words.spans("a  b") == [
        TokenSpan(1, "<s>", 0, 0, True),
        TokenSpan(4, "a", 0, 1, False),
        TokenSpan(5, "b", 3, 4, False),
        TokenSpan(2, "</s>", 0, 0, True),
    ]


def test_spans_are_made_after_their_number_was_checked(words: Tokenizer) -> None:
    """What the check raises passes through."""
    counts: list[int] = []
    assert len(words.spans("a  b", counts.append)) == 4
    assert counts == [4]

    def refuse(count: int) -> None:
        raise ValueError(count)

    with pytest.raises(ValueError, match="4"):
        words.spans("a  b", refuse)


def test_tokenizer_that_truncates_is_refused(tmp_path: Path) -> None:
    """A limit baked into the file would cut texts without anybody being told."""
    tokenizer = make_words()
    tokenizer.enable_truncation(4)
    with pytest.raises(ModelFolderError, match="cuts or pads texts by itself"):
        save(tokenizer, tmp_path)


def test_tokenizer_that_pads_is_refused(tmp_path: Path) -> None:
    """Padding baked into the file would become part of the source."""
    tokenizer = make_words()
    tokenizer.enable_padding()
    with pytest.raises(ModelFolderError, match="cuts or pads texts by itself"):
        save(tokenizer, tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "no JSON"])
def test_file_that_is_no_tokenizer_is_refused(content: str, tmp_path: Path) -> None:
    """The message names the file."""
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ModelFolderError) as caught:
        Tokenizer(path)
    assert str(caught.value).startswith(f"{path} is not a tokenizer: ")


def test_absent_tokenizer_is_refused(tmp_path: Path) -> None:
    """A file that does not exist is refused like one that cannot be read."""
    with pytest.raises(ModelFolderError, match=r"absent\.json is not a tokenizer"):
        Tokenizer(tmp_path / "absent.json")
