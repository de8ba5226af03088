"""Tiny tokenizers with every kind of decoder, as the server opens them."""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from seqserve.sentencepiece_record import SentencePieceRecord
from seqserve.sentencepiece_tokenizer import SentencePieceTokenizer
from seqserve.tokenizer import Tokenizer

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "a", "b", "c", "d"]


def make_words() -> Any:
    """A tokenizer of words that puts special tokens around a text."""
    tokenizer = tokenizers.Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def make_bytes() -> Any:
    """A tokenizer of single bytes: every character beyond ASCII is several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def make_word_pieces() -> Any:
    """A tokenizer of word pieces whose decoder cleans spaces up."""
    words = ["[UNK]", "[CLS]", "a", "##b", "do", "n't", "not", "'", "##'", ".", "##,", "日", "##本"]
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.add_special_tokens(words[:2])
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    return tokenizer


def make_byte_fallback() -> Any:
    """A tokenizer of pieces, and of bytes where there is no piece."""
    pieces = ["</s>", "▁", "▁a", "b", *(f"<0x{byte:02X}>" for byte in b"A\n\xff\xe6\x97\xa5\xc3")]
    tokenizer = tokenizers.Tokenizer(
        models.BPE({piece: index for index, piece in enumerate(pieces)}, [], byte_fallback=True)
    )
    tokenizer.add_special_tokens(pieces[:1])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def make_metaspace() -> Any:
    """A tokenizer of pieces that mark the space before them."""
    pieces = ["<unk>", "▁", "▁a", "a", "▁▁", "日", "\u0301"]
    tokenizer = tokenizers.Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], 0))
    tokenizer.add_special_tokens(pieces[:1])
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def make_suffixes() -> Any:
    """A tokenizer of pieces that mark the end of a word; the last mark gives no space."""
    tokenizer = tokenizers.Tokenizer(models.BPE({"a</w>": 0, "b": 1, "c</w>": 2}, []))
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return tokenizer


def make_rewriting() -> Any:
    """A tokenizer whose decoder takes a space back when a full stop follows."""
    words = ["a", " ", "."]
    tokenizer = tokenizers.Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="a")
    )
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace(" .", ".")])
    return tokenizer


def save(tokenizer: Any, folder: Path) -> Tokenizer:
    """The tokenizer as the server reads it."""
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return Tokenizer(path)


@functools.cache
def _train_pieces() -> bytes:
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat. do n't!", "a fat cat , no rat"] * 20),
        model_writer=file,
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return file.getvalue()


def make_pieces(decoding: str, *, is_space_cleaned: bool = False) -> SentencePieceTokenizer:
    """A tokenizer that the ``sentencepiece`` library runs, with bytes where there is no piece."""
    model = sentencepiece.SentencePieceProcessor(model_proto=_train_pieces())
    characters = "\u2581n'ta.,"
    pieces = [
        "at",
        "\u2581rat",
        *characters,
        *(f"<0x{byte:02X}>" for byte in b"A\xe6\x97\xa5\n"),
    ]
    assert not any(model.is_unknown(model.piece_to_id(piece)) for piece in pieces)
    return SentencePieceTokenizer(
        SentencePieceRecord.model_validate(
            {
                "tokens": ("</s>", "<unk>", *pieces),
                "unknown_id": 1,
                "special_ids": (0, 1),
                "special_tokens": ("</s>", "<unk>"),
                "added_tokens": (),
                "prefix_ids": (),
                "suffix_ids": (0,),
                "has_language_prefix": False,
                "decoding": decoding,
                "is_space_cleaned": is_space_cleaned,
                "model": _train_pieces(),
            }
        )
    )


ADDING: dict[str, Callable[[], Any]] = {
    "words": make_words,
    "bytes": make_bytes,
    "word_pieces": make_word_pieces,
    "byte_fallback": make_byte_fallback,
    "metaspace": make_metaspace,
    "suffixes": make_suffixes,
    "sentencepiece pieces": functools.partial(make_pieces, "pieces"),
    "sentencepiece spaces": functools.partial(make_pieces, "spaces"),
    "sentencepiece pieces_and_spaces": functools.partial(make_pieces, "pieces_and_spaces"),
    "sentencepiece cleaned": functools.partial(make_pieces, "pieces", is_space_cleaned=True),
}
"""Those whose decoder only adds to the text it gave when more ids come."""


def open_adding(name: str, folder: Path) -> Tokenizer:
    """One of :data:`ADDING`, read from a file."""
    return save(ADDING[name](), folder)
