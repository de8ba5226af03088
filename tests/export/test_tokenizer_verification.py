"""The comparison of written tokenizers with ``transformers`` finds what differs, and says it."""

import dataclasses
import json
import unicodedata
from pathlib import Path

import pytest
from tokenizers import normalizers

from seqserve.sentencepiece_tokenizer import SentencePieceTokenizer
from seqserve_export.errors import VerificationError
from seqserve_export.tokenization.folder_tokenizers import (
    FolderTokenizers,
    read_folder_tokenizers,
)
from seqserve_export.tokenization.sample_lines import LINES, SENTENCES, make_lines
from seqserve_export.tokenization.tokenizer_verification import verify_tokenizers
from tiny_tokenizer_folders import make_tokenizer_folder


def read(family: str, folder: Path) -> FolderTokenizers:
    """Tokenizers of a family's folder."""
    make_tokenizer_folder(family, folder / family)
    config = json.loads((folder / family / "config.json").read_text("utf-8"))
    return read_folder_tokenizers(folder / family, config)


def test_record_says_what_was_compared(tmp_path: Path) -> None:
    """Sources, targets and texts of every line, and random ids; no difference is tolerated."""
    record = verify_tokenizers(read("marian", tmp_path), 400)
    assert record.check == (
        "tokens and texts of MarianTokenizer, on 400 lines: served against transformers"
    )
    assert (record.count, record.max_abs_difference, record.tolerance) == (1400, 0.0, 0.0)


def test_other_normalizer_is_found(tmp_path: Path) -> None:
    """The first line that differs is named, with both results."""
    tokenizers = read("t5", tmp_path)
    tokenizers.source.normalizer = normalizers.Lowercase()  # type: ignore[union-attr]
    with pytest.raises(VerificationError) as caught:
        verify_tokenizers(tokenizers, 50)
    message = str(caught.value)
    assert message.startswith('tokens of the source "The quick brown fox jumps over the lazy dog')
    assert " differ: transformers gives [" in message
    assert ", the written tokenizer [" in message


def test_other_text_is_found(tmp_path: Path) -> None:
    """Tokens may be equal and their text not."""
    tokenizers = read("marian", tmp_path)
    source, target = tokenizers.source, tokenizers.target
    assert isinstance(source, SentencePieceTokenizer)
    assert isinstance(target, SentencePieceTokenizer)
    changed = target.record.model_copy(update={"is_space_cleaned": True})
    tokenizers = dataclasses.replace(tokenizers, target=SentencePieceTokenizer(changed))
    with pytest.raises(VerificationError, match=r"^text of the tokens "):
        verify_tokenizers(tokenizers, 400)


def test_other_frame_is_found(tmp_path: Path) -> None:
    """The language must stand where it stands in training."""
    tokenizers = read("mbart50", tmp_path)
    assert tokenizers.languages is not None
    languages = dataclasses.replace(
        tokenizers.languages, source_prefix=(), source_suffix=(2, "source_language")
    )
    with pytest.raises(VerificationError, match=r"^tokens of .* from ar_AR to sl_SI differ: "):
        verify_tokenizers(dataclasses.replace(tokenizers, languages=languages), 50)


def test_lines_are_the_same_every_time() -> None:
    """Lines follow from their seed; what was thought of comes first."""
    lines = make_lines(900)
    assert lines == make_lines(900)
    assert lines != make_lines(900, seed=1)
    assert len(lines) == 900
    assert lines[: len(LINES)] == list(LINES)


def test_sentences_are_in_many_scripts() -> None:
    """Letters of at least 20 scripts."""
    letters = {character for line in SENTENCES for character in line if character.isalpha()}
    assert len({unicodedata.name(letter, "?").split()[0] for letter in letters}) >= 20


def test_lines_are_texts() -> None:
    """Every line could come from a client: it has no lone surrogates."""
    assert all(line.encode("utf-8").decode("utf-8") == line for line in make_lines(3000))
