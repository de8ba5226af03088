"""The tokenizers of the pronunciation model: letters in, phonemes out."""

import string
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.normalizers import NFD, Lowercase, Replace, StripAccents
from tokenizers.normalizers import Sequence as NormalizerSequence
from tokenizers.pre_tokenizers import Split, WhitespaceSplit
from tokenizers.processors import TemplateProcessing

PAD_ID, START_ID, END_ID, UNKNOWN_ID = range(4)
_SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
_LETTERS = "'" + string.ascii_lowercase


def make_source_tokenizer(others: str = "") -> Tokenizer:
    """Makes the tokenizer of words: one token a letter, then ``</s>``.

    Case and accents are removed and curly apostrophes made straight first; any other character
    is ``<unk>``.

    Args:
        others: Characters that have tokens behind those of the letters.
    """
    tokenizer = _make_word_level(_LETTERS + others)
    tokenizer.normalizer = NormalizerSequence(
        [NFD(), StripAccents(), Lowercase(), Replace("\u2019", "'"), Replace("\u2018", "'")]
    )
    # A dot would not match a line break.
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", END_ID)]
    )
    tokenizer.decoder = Fuse()
    return tokenizer


def make_target_tokenizer(phonemes: Sequence[str]) -> Tokenizer:
    """Makes the tokenizer of pronunciations, which are phonemes with spaces between them."""
    tokenizer = _make_word_level(sorted(phonemes))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer


def _make_word_level(tokens: Sequence[str]) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate([*_SPECIAL_TOKENS, *tokens])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL_TOKENS])
    return tokenizer
