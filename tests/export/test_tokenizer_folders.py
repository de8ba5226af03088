"""Tokenizers of Hugging Face folders: the tokens and texts of ``transformers``."""

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import normalizers
from transformers import AddedToken

from seqserve.tokenizer import Tokenizer
from seqserve_export.tokenization.sample_lines import LINES, SENTENCES, make_lines
from seqserve_export.tokenization.tokenizer_verification import verify_tokenizers
from tiny_tokenizer_folders import FAMILIES, make_marian, make_tokenizer_folder, write_json
from tokenizer_folder import add_settings, read

# What each class puts around a source: (prefix, suffix) with the language as its name.
FRAMES = {
    "marian-multilingual": (("target_language",), (0,), "source_prefix"),
    "m2m_100": (("source_language",), (2,), "forced_bos"),
    "m2m_100-listed": (("source_language",), (2,), "forced_bos"),
    "plbart-base": ((), (2, "source_language"), "decoder_start"),
    "plbart-multi": ((), (2, "source_language"), "decoder_start"),
    "nllb": (("source_language",), (2,), "forced_bos"),
    "nllb-legacy": ((), (2, "source_language"), "forced_bos"),
    "mbart": ((), (2, "source_language"), "decoder_start"),
    "mbart50": (("source_language",), (2,), "forced_bos"),
}


def served(tokenizer: Any, folder: Path) -> Tokenizer:
    """A tokenizer as the server reads it."""
    path = folder / "served.json"
    tokenizer.save(str(path))
    return Tokenizer(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_and_texts_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    """Sources, targets, frames and texts are equal on every sample line, and on random ones."""
    tokenizers = read(make_tokenizer_folder(family, tmp_path / "folder"))
    record = verify_tokenizers(tokenizers, 600)
    assert record.count > 3 * 600


@pytest.mark.parametrize("family", ["marian", "bart", "t5", "albert", "bert", "pegasus"])
def test_special_tokens_are_added_where_nobody_else_does(family: str, tmp_path: Path) -> None:
    """Without languages, encoding gives the whole source; a fresh tokenizer of theirs agrees."""
    folder = make_tokenizer_folder(family, tmp_path / "folder")
    tokenizers = read(folder)
    tokenizer = served(tokenizers.source, tmp_path)
    original = tokenizers.original
    assert tokenizers.languages is None
    assert tokenizer.num_added_tokens == original.num_special_tokens_to_add() > 0
    for line in LINES:
        assert tokenizer.encode(line) == original(line, verbose=False)["input_ids"]


@pytest.mark.parametrize(
    ("family", "first", "last"),
    [
        ("albert", "[CLS]", "[SEP]"),
        ("bart", "<s>", "</s>"),
        ("bert", "[CLS]", "[SEP]"),
        ("camembert", "<s>", "</s>"),
        ("deberta", "[CLS]", "[SEP]"),
        ("deberta-v2", "[CLS]", "[SEP]"),
        ("distilbert", "[CLS]", "[SEP]"),
        ("electra", "[CLS]", "[SEP]"),
        ("led", "<s>", "</s>"),
        ("mpnet", "<s>", "</s>"),
        ("mt5", None, "</s>"),
        ("pegasus", None, "</s>"),
        ("roberta", "<s>", "</s>"),
        ("t5", None, "</s>"),
        ("umt5", None, "</s>"),
        ("xlm-roberta", "<s>", "</s>"),
        ("marian", None, "</s>"),
        ("marian-separate", None, "</s>"),
    ],
)
def test_special_tokens_are_those_of_training(
    family: str, first: str | None, last: str, tmp_path: Path
) -> None:
    """Older files do not list them; each class has its own."""
    tokenizers = read(make_tokenizer_folder(family, tmp_path / "folder"))
    spans = served(tokenizers.source, tmp_path).spans("fox")
    special = [span.text for span in spans if span.is_special]
    assert special == ([last] if first is None else [first, last])
    assert spans[-1].text == last


@pytest.mark.parametrize("family", FRAMES)
def test_frame_is_left_to_the_server(family: str, tmp_path: Path) -> None:
    """With languages, encoding adds nothing; the frame says what goes where."""
    tokenizers = read(make_tokenizer_folder(family, tmp_path / "folder"))
    languages = tokenizers.languages
    assert languages is not None
    found = (languages.source_prefix, languages.source_suffix, languages.target_mode)
    assert found == FRAMES[family]
    assert served(tokenizers.source, tmp_path).num_added_tokens == 0
    text = served(tokenizers.source, tmp_path).encode("fox")
    source, target = next(iter(languages.source_codes), None), list(languages.target_codes)[-1]
    codes = {
        "source_language": languages.source_codes.get(source or ""),
        "target_language": languages.target_codes[target],
    }
    prefix, suffix = (
        [marker if isinstance(marker, int) else codes[marker] for marker in part]
        for part in found[:2]
    )
    assert languages.frame(text, source, target) == [*prefix, *text, *suffix]


@pytest.mark.parametrize(
    ("family", "source", "target"),
    [
        ("marian-multilingual", None, "zho_Hans"),
        ("m2m_100", "en", "zu"),
        ("plbart-base", "python", "en_XX"),
        ("plbart-multi", "python", "go"),
        ("nllb", "eng_Latn", "zho_Hans"),
        ("mbart", "en_XX", "ro_RO"),
        ("mbart50", "en_XX", "sl_SI"),
    ],
)
def test_languages_have_their_public_names(
    family: str, source: str | None, target: str, tmp_path: Path
) -> None:
    """Codes are what users of these models write."""
    languages = read(make_tokenizer_folder(family, tmp_path / "folder")).languages
    assert languages is not None
    assert source is None or source in languages.source_codes
    assert target in languages.target_codes


def test_language_of_a_frame_must_be_known(tmp_path: Path) -> None:
    """A frame with a language cannot be made without one."""
    languages = read(make_tokenizer_folder("mbart", tmp_path / "folder")).languages
    assert languages is not None
    with pytest.raises(ValueError, match="the source's frame needs its source_language"):
        languages.frame([1], None, "ro_RO")


@pytest.mark.parametrize(
    ("family", "offset", "file"),
    [
        ("xlm-roberta", 1, "sentencepiece.bpe.model"),
        ("mbart", 1, "sentencepiece.bpe.model"),
        ("mbart50", 1, "sentencepiece.bpe.model"),
        ("nllb", 1, "sentencepiece.bpe.model"),
        ("plbart-base", 1, "sentencepiece.bpe.model"),
        ("t5", 0, "spiece.model"),
        ("pegasus", 103, "spiece.model"),
        ("albert", 0, "spiece.model"),
    ],
)
def test_ids_are_those_the_models_were_trained_with(
    family: str, offset: int, file: str, tmp_path: Path
) -> None:
    """Pieces keep their places, moved by what stands before them; languages come after."""
    folder = make_tokenizer_folder(family, tmp_path / "folder")
    tokenizers = read(folder)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / file))
    vocabulary = tokenizers.source.get_vocab(with_added_tokens=True)
    for index in range(5, len(pieces)):
        assert vocabulary[pieces.id_to_piece(index)] == index + offset
    if tokenizers.languages is not None:
        ids = list(tokenizers.languages.target_codes.values())
        assert ids == list(range(len(pieces) + 1, len(pieces) + 1 + len(ids)))


def test_nllb_has_the_same_tokens_with_and_without_a_ready_file(tmp_path: Path) -> None:
    """Languages and mask get their ids from the pieces, the settings or the file alike."""
    folder = make_tokenizer_folder("nllb", tmp_path / "folder")
    bare = read(folder)
    bare.original.save_pretrained(folder)
    ready = read(folder)
    assert (folder / "tokenizer.json").is_file()
    assert ready.source.to_str() == bare.source.to_str()
    assert ready.languages == bare.languages
    (folder / "tokenizer.json").unlink()
    added = {
        token_id: {"content": token.content, "special": True, "lstrip": token.lstrip}
        for token_id, token in bare.original.added_tokens_decoder.items()
    }
    add_settings(folder, added_tokens_decoder=added)
    assert read(folder).languages == bare.languages
    assert bare.languages is not None
    assert bare.languages.default_source == "fra_Latn"


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "bpe"},
        {"byte_fallback": True},
        {"normalization_rule_name": "identity"},
        {"normalization_rule_name": "nfkc_cf"},
        {"add_dummy_prefix": False},
        {"remove_extra_whitespaces": False},
        {"treat_whitespace_as_suffix": True},
        {"user_defined_symbols": "fox,Stra"},
        {"control_symbols": "<c>"},
    ],
    ids=str,
)
def test_every_kind_of_model_is_exact(settings: dict[str, Any], tmp_path: Path) -> None:
    """Whatever SentencePiece was told when it was trained."""
    folder = tmp_path / "folder"
    folder.mkdir()
    write_json(folder / "config.json", make_marian(folder, **settings))
    verify_tokenizers(read(folder), 600)


def test_marian_pieces_of_the_other_side_are_unreachable(tmp_path: Path) -> None:
    """A vocabulary of both sides: sources use the source's pieces, targets the target's."""
    tokenizers = read(make_tokenizer_folder("marian", tmp_path / "folder"))
    assert tokenizers.target is not None
    source, target = served(tokenizers.source, tmp_path), served(tokenizers.target, tmp_path)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "folder/source.spm"))
    known = {pieces.id_to_piece(index) for index in range(3, len(pieces))}
    letters = set("".join(known))
    foreign = {
        token: token_id
        for token, token_id in tokenizers.source.get_vocab(with_added_tokens=True).items()
        if token not in known and set(token) <= letters and len(token) > 2
    }
    assert len(foreign) > 5
    for token, token_id in foreign.items():
        text = token.replace("\u2581", " ").strip()
        assert token_id not in source.encode(text)
        assert source.decode([token_id]) == target.decode([token_id]) == text
    assert {*foreign.values()} & {index for line in LINES for index in target.encode(line)}


def test_added_tokens_take_their_spaces(tmp_path: Path) -> None:
    """Texts are split at added tokens, the longest first, with the spaces that belong to them."""
    folder = make_tokenizer_folder("marian", tmp_path / "folder")
    original = read(folder).original
    original.add_tokens(
        [
            AddedToken("<left>", lstrip=True, special=True),
            AddedToken("<right>", rstrip=True, special=True),
            AddedToken("<both>", lstrip=True, rstrip=True),
            AddedToken("ab"),
            AddedToken("abc"),
            AddedToken("bcd"),
        ]
    )
    original.save_pretrained(folder)
    tokenizers = read(folder)
    tokenizer = served(tokenizers.source, tmp_path)
    parts = ["<left>", "<right>", "<both>", "ab", "abc", "bcd", "a", "b", "c", "d", " ", "  ", "x"]
    for line in make_lines(400):
        text = "".join(parts[ord(character) % len(parts)] for character in line[:12])
        expected = tokenizers.original(text, verbose=False)["input_ids"]
        assert tokenizer.encode(text) == expected, text
    verify_tokenizers(tokenizers, 300)


def test_spaces_before_signs_are_removed_where_the_folder_says_so(tmp_path: Path) -> None:
    """The clean-up of ``transformers`` is part of the written file."""
    folder = make_tokenizer_folder("t5", tmp_path / "folder")
    add_settings(folder, clean_up_tokenization_spaces=True)
    tokenizers = read(folder)
    tokenizer = served(tokenizers.source, tmp_path)
    assert tokenizer.decode(tokenizer.encode("a fox , it 's !")) == "a fox, it's!"
    verify_tokenizers(tokenizers, 300)


def test_limits_of_a_ready_file_are_removed(tmp_path: Path) -> None:
    """Truncation and padding belong to requests."""
    folder = make_tokenizer_folder("t5", tmp_path / "folder")
    original = read(folder).original
    original.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    content["truncation"] = {
        "direction": "Right",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    write_json(path, content)
    tokenizer = served(read(folder).source, tmp_path)
    assert len(tokenizer.encode(SENTENCES[0])) > 4


def test_ready_file_that_transformers_changes_is_told(tmp_path: Path) -> None:
    """Some classes take their normalizer from code; the difference is not silent."""
    folder = make_tokenizer_folder("mbart", tmp_path / "folder")
    tokenizers = read(folder)
    tokenizers.original.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizers.original.save_pretrained(folder)
    (note,) = read(folder).notes
    assert note.startswith("MBartTokenizer of transformers ")
    assert "gives other tokens than tokenizer.json of the folder on " in note


@pytest.mark.parametrize(
    ("family", "num_different"),
    [("mbart", 7), ("xlm-roberta", 1), ("bert", 0), ("albert", 0), ("marian", 0), ("m2m_100", 0)],
)
def test_loss_of_normalization_is_told(family: str, num_different: int, tmp_path: Path) -> None:
    """Where transformers does not normalize as the SentencePiece file says, export says so."""
    notes = read(make_tokenizer_folder(family, tmp_path / "folder")).notes
    assert len(notes) == (num_different > 0)
    expected = f"sentencepiece.bpe.model of the folder on {num_different} of {len(SENTENCES)} "
    assert all(expected in note for note in notes), notes


def test_ready_file_needs_no_class(tmp_path: Path) -> None:
    """A ready file says everything by itself, whatever model it is for."""
    folder = make_tokenizer_folder("roberta", tmp_path / "folder")
    before = read(folder)
    before.source.save(str(folder / "tokenizer.json"))
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    write_json(folder / "config.json", {"model_type": "mine"})
    after = read(folder)
    assert after.source.to_str() == before.source.to_str()
    verify_tokenizers(after, 300)
