"""Tokenizers of Hugging Face folders that are refused, by name and with what is supported."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import SeamlessM4TTokenizer

from seqserve_export.errors import CheckpointError, ExportError, UnsupportedError
from seqserve_export.tokenization.folder_files import mend_model_reader
from tiny_tokenizer_folders import make_tokenizer_folder, train_pieces, write_json
from tokenizer_folder import add_settings, read


def check_refused(error: type[ExportError], message: str, folder: Path) -> None:
    """Reading raises the error, and its message has the words."""
    with pytest.raises(error) as caught:
        read(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("marian", "has no source.spm, target.spm, vocab.json; MarianTokenizer is read from"),
        ("marian-separate", "has no source.spm, target.spm, vocab.json, target_vocab.json;"),
        ("m2m_100", "has no vocab.json, sentencepiece.bpe.model; M2M100Tokenizer is read from"),
        ("t5", "has neither tokenizer.json nor spiece.model; T5Tokenizer is read from"),
        ("bart", "has neither tokenizer.json nor vocab.json, merges.txt; RobertaTokenizer is"),
        ("bert", "has neither tokenizer.json nor vocab.txt; BertTokenizer is read from vocab.txt"),
    ],
)
def test_absent_files_are_named(family: str, message: str, tmp_path: Path) -> None:
    """Nothing is made up for a file that is not there."""
    folder = make_tokenizer_folder(family, tmp_path / "folder")
    for path in folder.iterdir():
        if path.name not in ("config.json", "tokenizer_config.json"):
            path.unlink()
    check_refused(CheckpointError, message, folder)


@pytest.mark.parametrize(
    ("family", "file", "content", "message"),
    [
        ("marian", "target.spm", "no model", "target.spm is not a SentencePiece model: "),
        ("t5", "spiece.model", "no model", "spiece.model is not a SentencePiece model: "),
        ("marian", "vocab.json", "no JSON", "vocab.json is not JSON: "),
        ("marian", "vocab.json", "[]", "vocab.json must hold a JSON object"),
        ("marian", "vocab.json", "{}", "transformers cannot read the tokenizer of "),
        ("t5", "tokenizer.json", "{}", "tokenizer.json is not a tokenizer: "),
        ("t5", "tokenizer_config.json", "no JSON", "tokenizer_config.json is not JSON: "),
        ("mbart", "tokenizer_config.json", '{"tgt_lang": "xx"}', "\"tgt_lang\": 'xx' in tokenizer"),
    ],
)
def test_broken_files_are_named(
    family: str, file: str, content: str, message: str, tmp_path: Path
) -> None:
    """A file that cannot be read is not taken for something else."""
    folder = make_tokenizer_folder(family, tmp_path / "folder")
    (folder / file).write_text(content, encoding="utf-8")
    check_refused(CheckpointError, message, folder)


def test_ready_file_of_another_class_is_refused(tmp_path: Path) -> None:
    """A class that takes its vocabulary from elsewhere must not be served under the file's name."""
    folder = make_tokenizer_folder("xlm-roberta", tmp_path / "folder")
    ready = make_tokenizer_folder("t5", tmp_path / "ready")
    read(ready).original.save_pretrained(ready)
    shutil.copy(ready / "tokenizer.json", folder)
    add_settings(folder, tokenizer_class="BlenderbotTokenizer")
    check_refused(CheckpointError, "BlenderbotTokenizer of transformers ", folder)
    check_refused(CheckpointError, "does not take its vocabulary and model from ", folder)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("BarthezTokenizer", "alone, not with sentencepiece.bpe.model; save the folder again"),
        ("PreTrainedTokenizerFast", "has neither tokenizer.json nor tokenizer.model"),
    ],
)
def test_older_files_of_some_classes_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    """``transformers`` reads them, but with other ids than those the models were trained with."""
    folder = make_tokenizer_folder("xlm-roberta", tmp_path / "folder")
    add_settings(folder, tokenizer_class=kind)
    check_refused(UnsupportedError if "alone" in message else CheckpointError, message, folder)


@pytest.mark.parametrize("kind", ["ByT5Tokenizer", "BlenderbotSmallTokenizer", "FSMTTokenizer"])
def test_other_classes_are_refused(kind: str, tmp_path: Path) -> None:
    """The message names the class and what is supported."""
    folder = make_tokenizer_folder("t5", tmp_path / "folder")
    add_settings(folder, tokenizer_class=kind)
    check_refused(UnsupportedError, f"the tokenizer class {kind} ", folder)
    check_refused(UnsupportedError, "M2M100Tokenizer, MarianTokenizer, PLBartTokenizer", folder)


def test_unknown_class_is_refused(tmp_path: Path) -> None:
    """``transformers`` would take another class."""
    folder = make_tokenizer_folder("t5", tmp_path / "folder")
    add_settings(folder, tokenizer_class="MyTokenizer")
    check_refused(UnsupportedError, "the tokenizer class MyTokenizer ", folder)


def test_folder_without_a_class_is_refused(tmp_path: Path) -> None:
    """A model type that no tokenizer belongs to says nothing about the files."""
    folder = make_tokenizer_folder("t5", tmp_path / "folder")
    write_json(folder / "config.json", {"model_type": "mine"})
    check_refused(UnsupportedError, "none belongs to \"model_type\": 'mine'; supported are", folder)
    check_refused(UnsupportedError, 'there is no tokenizer.json, no "tokenizer_class" in', folder)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize(
    "code", [{"AutoTokenizer": ["mine.MyTokenizer", None]}, ["mine.MyTokenizer", None]]
)
def test_code_of_the_folder_is_never_run(file: str, code: Any, tmp_path: Path) -> None:
    """A tokenizer that is Python code is refused, in both spellings."""
    folder = make_tokenizer_folder("t5", tmp_path / "folder")
    path = folder / file
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    write_json(path, content | {"auto_map": code})
    check_refused(UnsupportedError, f"{file} names Python code for its tokenizer", folder)


@pytest.mark.parametrize("family", ["t5", "m2m_100"])
def test_split_special_tokens_are_refused(family: str, tmp_path: Path) -> None:
    """The switch has no place in a tokenizer's file."""
    folder = make_tokenizer_folder(family, tmp_path / "folder")
    add_settings(folder, split_special_tokens=True)
    check_refused(UnsupportedError, '"split_special_tokens": true', folder)


def test_sampled_pieces_are_refused(tmp_path: Path) -> None:
    """Tokens of a text must not be a matter of chance."""
    folder = make_tokenizer_folder("marian", tmp_path / "folder")
    add_settings(folder, sp_model_kwargs={"enable_sampling": True, "nbest_size": -1, "alpha": 0.1})
    check_refused(UnsupportedError, '"sp_model_kwargs": {', folder)


def test_added_single_words_are_refused(tmp_path: Path) -> None:
    """A rule of added tokens that the server does not have is not left out."""
    folder = make_tokenizer_folder("marian", tmp_path / "folder")
    added = {"900": {"content": "word", "single_word": True, "special": False}}
    add_settings(folder, added_tokens_decoder=added)
    check_refused(UnsupportedError, "the added token 'word' with \"single_word\": true", folder)


def test_other_classes_with_languages_are_refused(tmp_path: Path) -> None:
    """Languages that nobody would put in place are not left out."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "sentencepiece.bpe.model").write_bytes(train_pieces(model_type="bpe"))
    write_json(folder / "config.json", {"model_type": "seamless_m4t"})
    mend_model_reader()
    SeamlessM4TTokenizer.from_pretrained(folder).save_pretrained(folder)
    check_refused(UnsupportedError, "SeamlessM4TTokenizer has languages in a way", folder)
