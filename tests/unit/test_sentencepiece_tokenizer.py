"""Tokenizers run by ``sentencepiece``: ids of their own, added tokens, offsets, refusals."""

import functools
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from seqserve.errors import ModelFolderError
from seqserve.sentencepiece_record import AddedTokenRecord, SentencePieceRecord
from seqserve.sentencepiece_tokenizer import SentencePieceTokenizer
from seqserve.text_stream import TextStream
from seqserve.tokenizer import Tokenizer, TokenSpan


@functools.cache
def train_model() -> bytes:
    """A model of a few words and all letters of them."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat", "the mat is flat", "a fat cat, no rat é"] * 20),
        model_writer=file,
        vocab_size=40,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return file.getvalue()


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """The special tokens, then the pieces in another order than the model's."""
    model = sentencepiece.SentencePieceProcessor(model_proto=train_model())
    pieces = sorted(model.id_to_piece(index) for index in range(3, len(model)))
    return ("</s>", "<unk>", ">>deu<<", *pieces)


def make_record(**changes: Any) -> SentencePieceRecord:
    """A record of the model above."""
    fields: dict[str, Any] = {
        "tokens": vocabulary(),
        "unknown_id": 1,
        "special_ids": (0, 1),
        "special_tokens": ("</s>", "<unk>"),
        "added_tokens": (
            AddedTokenRecord(content="</s>", token_id=0),
            AddedTokenRecord(content="<unk>", token_id=1, is_left_stripped=True),
        ),
        "prefix_ids": (),
        "suffix_ids": (0,),
        "has_language_prefix": True,
        "decoding": "pieces",
        "is_space_cleaned": False,
        "model": train_model(),
    }
    return SentencePieceRecord(**(fields | changes))


def open_tokenizer(folder: Path, **changes: Any) -> Tokenizer:
    """The tokenizer as the server reads it from its file."""
    path = folder / "tokenizer.json"
    SentencePieceTokenizer(make_record(**changes)).save(str(path))
    return Tokenizer(path)


def ids_of(*tokens: str) -> list[int]:
    """Ids of entries."""
    return [vocabulary().index(token) for token in tokens]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    """A tokenizer of the model above."""
    return open_tokenizer(tmp_path)


def test_ids_are_those_of_the_vocabulary(tokenizer: Tokenizer) -> None:
    """The model splits, the vocabulary numbers; the suffix comes last."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=train_model())
    expected = ids_of(*pieces.encode("the cat", out_type=str))
    assert tokenizer.encode("the cat") == [*expected, 0]
    assert tokenizer.decode([*expected, 0]) == "the cat"
    assert tokenizer.num_added_tokens == 1
    assert tokenizer.vocabulary_size == len(vocabulary())


def test_unknown_characters_are_one_token(tokenizer: Tokenizer) -> None:
    """A run of characters the model lacks is one unknown token."""
    assert tokenizer.encode("日本") == [*ids_of("\u2581"), 1, 0]


def test_marks_are_kept(tokenizer: Tokenizer) -> None:
    """Text is normalized by the longest match, not by what looks like one character."""
    assert tokenizer.encode("e\u0301\u0323") != tokenizer.encode("e\u0301")
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")


def test_special_tokens_in_a_text_are_tokens(tokenizer: Tokenizer) -> None:
    """Texts are split at them, with the spaces that belong to them."""
    middle = tokenizer.encode("a  <unk> a</s>")
    letter = tokenizer.encode("a")[:-1]
    assert middle == [*letter, 1, *letter, 0, 0]


def test_language_code_at_the_start_is_one_token(tokenizer: Tokenizer) -> None:
    """The code is looked up; one that has no entry is unknown, and elsewhere it is text."""
    assert tokenizer.encode(">>deu<< a") == [2, *tokenizer.encode("a")]
    assert tokenizer.encode(">>xxx<<a") == [1, *tokenizer.encode("a")]
    assert 2 not in tokenizer.encode("a >>deu<<")


def test_language_code_is_text_elsewhere(tmp_path: Path) -> None:
    """Models without such codes read them as they stand."""
    assert 2 not in open_tokenizer(tmp_path, has_language_prefix=False).encode(">>deu<< a")


def test_spans_tell_where_tokens_stand(tokenizer: Tokenizer) -> None:
    """Offsets count code points of the text, before normalization."""
    text = ">>deu<<  é</s> cat"
    spans = tokenizer.spans(text)
    places = {(text[span.start : span.end], span.token_id) for span in spans if not span.is_special}
    assert (">>deu<<", 2) in places
    assert ("</s>", 0) in places
    assert "".join(text[span.start : span.end] for span in spans).replace(" ", "") == (
        ">>deu<<é</s>cat"
    )
    assert spans[-1] == TokenSpan(0, "</s>", 0, 0, True)


@given(text=st.text(max_size=20))
def test_spans_are_in_order_and_have_the_ids(text: str) -> None:
    """Whatever the text, places advance, stay inside of it, and belong to the encoded ids."""
    tokenizer = SentencePieceTokenizer(make_record())
    encoding = tokenizer.encode(text, add_special_tokens=False)
    position = 0
    for start, end in encoding.offsets:
        assert position <= start <= end <= len(text)
        position = start
    assert [*encoding.ids, 0] == tokenizer.encode(text).ids


@pytest.mark.parametrize("max_length", [1, 2, 3, 5, 9])
def test_truncation_keeps_special_tokens(max_length: int, tokenizer: Tokenizer) -> None:
    """Only tokens of the text are cut, at its end, and they are counted."""
    whole = tokenizer.encode("a fat cat sat")
    expected = [*whole[:-1][: max_length - 1], 0]
    cut = (expected, len(whole) - len(expected))
    assert tokenizer.encode_truncated("a fat cat sat", max_length) == cut


def test_prefix_comes_first(tmp_path: Path) -> None:
    """Both ends are added to whole texts alone."""
    tokenizer = open_tokenizer(tmp_path, prefix_ids=(2,), suffix_ids=(0, 1))
    assert tokenizer.encode("") == [2, 0, 1]
    assert tokenizer.num_added_tokens == 3


def test_pieces_the_model_lacks_keep_their_sign(tmp_path: Path) -> None:
    """How U+2581 becomes a space is a matter of the checkpoint's class."""
    tokens = (*vocabulary(), "\u2581new", None)
    ids = [*ids_of("\u2581the" if "\u2581the" in vocabulary() else "\u2581"), len(tokens) - 2]
    texts = {
        decoding: open_tokenizer(tmp_path, tokens=tokens, decoding=decoding).decode(ids)
        for decoding in ("pieces", "spaces", "pieces_and_spaces")
    }
    assert texts["pieces"].endswith("\u2581new")
    assert texts["spaces"] == texts["pieces_and_spaces"]
    assert texts["spaces"].endswith("new")
    assert "\u2581" not in texts["spaces"]


def test_ids_without_an_entry_have_no_text(tmp_path: Path) -> None:
    """Neither a hole nor an id beyond the table is text."""
    tokenizer = open_tokenizer(tmp_path, tokens=(*vocabulary(), None))
    ids = tokenizer.encode("a cat")
    assert tokenizer.decode([*ids, len(vocabulary()), 10_000, -1]) == "a cat"
    assert tokenizer.vocabulary_size == len(vocabulary())


def test_special_tokens_with_other_ids_are_no_pieces(tmp_path: Path) -> None:
    """An entry that is called like a special token, but is not one, stays in the text."""
    tokens = (*vocabulary(), "</s>")
    for decoding, expected in (("pieces", "a</s>a"), ("pieces_and_spaces", "a</s> a")):
        tokenizer = open_tokenizer(tmp_path, tokens=tokens, decoding=decoding)
        letter = tokenizer.encode("a")[:-1]
        assert tokenizer.decode([*letter, len(tokens) - 1, *letter]) == expected


def test_spaces_before_signs_are_removed_if_asked(tmp_path: Path) -> None:
    """Clean-up is a switch of the record."""
    ids = open_tokenizer(tmp_path).encode("a cat , no")
    assert open_tokenizer(tmp_path).decode(ids) == "a cat , no"
    assert open_tokenizer(tmp_path, is_space_cleaned=True).decode(ids) == "a cat, no"


def test_pieces_with_another_id_are_encoded_by_it(tmp_path: Path) -> None:
    """Where two entries have one id, each side takes its own."""
    piece = vocabulary()[-1]
    tokenizer = open_tokenizer(tmp_path, other_ids={piece: 5})
    before = open_tokenizer(tmp_path).encode(piece.strip("\u2581"))
    assert {len(vocabulary()) - 1} & set(before)
    assert tokenizer.encode(piece.strip("\u2581")) == [
        5 if token_id == len(vocabulary()) - 1 else token_id for token_id in before
    ]


def test_text_streams(tokenizer: Tokenizer) -> None:
    """Pieces of streamed text join to the text."""
    ids = tokenizer.encode("the cat sat on a mat")
    stream = TextStream(tokenizer)
    pieces = [stream.push([token_id]) for token_id in ids]
    assert "".join([*pieces, stream.finish(tokenizer.decode(ids))]) == tokenizer.decode(ids)


def test_file_reads_as_it_was_written() -> None:
    """Nothing of a record is lost, not even another model for decoding."""
    tokenizer = SentencePieceTokenizer(make_record(decoding_model=train_model()))
    again = SentencePieceTokenizer.from_str(tokenizer.to_str())
    assert again.record == tokenizer.record
    assert again.get_vocab() == {token: index for index, token in enumerate(vocabulary())}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bm8gbW9kZWw="}, "the SentencePiece model is broken: "),
        ({"decoding_model": "bm8gbW9kZWw="}, "the SentencePiece model is broken: "),
        ({"format_version": 2}, "format_version: Input should be 1"),
        ({"unknown_id": "1"}, "unknown_id: Input should be a valid integer"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"unknown_id": 10_000}, "`unknown_id` must be at least 0 and below 10000,"),
        (
            {"suffix_ids": [-1]},
            "`suffix_ids` must be at least 0 and below 10000, the",
        ),
    ],
)
def test_malformed_file_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The message names the file and what is wrong in it."""
    content = json.loads(make_record().model_dump_json()) | changes
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    message = message.replace("10000", str(len(vocabulary())))
    with pytest.raises(ModelFolderError) as caught:
        Tokenizer(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_absent_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installations without the extra say how to get it."""
    path = tmp_path / "tokenizer.json"
    path.write_text(make_record().model_dump_json(), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ModelFolderError) as caught:
        Tokenizer(path)
    assert str(caught.value) == (
        f"{path}: this tokenizer needs the package sentencepiece; "
        "install it with: pip install 'seqserve[sentencepiece]'"
    )
