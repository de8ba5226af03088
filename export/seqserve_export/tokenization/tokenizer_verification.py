"""Compares written tokenizers, as the server reads them, with those of ``transformers``.

Everything must be equal: ids of sources and targets, with and without special tokens, for some of
the languages, and the text of what was encoded and of random ids.
"""

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seqserve.manifest import VerificationRecord
from seqserve.tokenizer import Tokenizer
from seqserve_export.errors import VerificationError
from seqserve_export.tokenization.folder_tokenizers import FolderTokenizer, FolderTokenizers
from seqserve_export.tokenization.languages import Languages
from seqserve_export.tokenization.sample_lines import make_lines

NUM_LINES = 2000
NUM_LANGUAGES = 4
"""Languages whose frame is compared: some from the start and the end of the list."""
SEED = 20180620


def verify_tokenizers(
    tokenizers: FolderTokenizers, num_lines: int = NUM_LINES
) -> VerificationRecord:
    """Compares on sample lines and on random ids.

    Returns:
        How many results were compared; all were equal.

    Raises:
        VerificationError: A result differs; the first line that does and both results are named.
    """
    return TokenizerVerifier(tokenizers, make_lines(num_lines)).verify()


class TokenizerVerifier:
    """The comparisons of one pair of tokenizers."""

    def __init__(self, tokenizers: FolderTokenizers, lines: Sequence[str]) -> None:
        self._original: Any = tokenizers.original
        self._languages = tokenizers.languages
        self._lines = lines
        self._source = _reopen(tokenizers.source)
        self._target = self._source if tokenizers.target is None else _reopen(tokenizers.target)
        self._count = 0

    def verify(self) -> VerificationRecord:
        """Runs all comparisons.

        Raises:
            VerificationError: A result differs.
        """
        if self._languages is None:
            self._compare_ids("source", self._source.encode, self._encode_source)
            self._compare_ids("target", self._target.encode, self._encode_target)
        else:
            self._compare_ids("source", self._source.encode, self._encode_plain_source)
            self._compare_ids("target", self._target.encode, self._encode_plain_target)
            for source, target in _pick_languages(self._languages):
                self._compare_frame(self._languages, source, target)
        self._compare_texts()
        return VerificationRecord(
            check=f"tokens and texts of {type(self._original).__name__}, on {len(self._lines)} "
            "lines: served against transformers",
            count=self._count,
            max_abs_difference=0.0,
            tolerance=0.0,
        )

    def _compare_ids(
        self,
        side: str,
        encode: Callable[[str], list[int]],
        expect: Callable[[str], list[int]],
    ) -> None:
        for line in self._lines:
            self._compare(expect(line), encode(line), f"tokens of the {side} {line!r}")

    def _compare_frame(self, languages: Languages, source: str | None, target: str | None) -> None:
        """Compares whole sources, from one language into another."""
        if source is not None:
            self._original.src_lang = source
        for line in self._lines[:: max(1, len(self._lines) // 200)]:
            text = line
            if languages.target_mode == "source_prefix":
                if line.startswith(">>"):
                    # transformers would take the code of the text for text.
                    continue
                text = f">>{target}<< {line}"
            expected = self._encode_source(text)
            actual = languages.frame(self._source.encode(line), source, target)
            self._compare(expected, actual, f"tokens of {line!r} from {source} to {target}")

    def _compare_texts(self) -> None:
        """Compares the text of encoded targets, of sources, and of random ids."""
        generator = random.Random(SEED)
        size = self._target.vocabulary_size
        rows = [self._target.encode(line) for line in self._lines]
        rows += [self._source.encode(line) for line in self._lines[::4]]
        rows += [
            [generator.randrange(size) for _ in range(generator.randint(1, 12))]
            for _ in range(len(self._lines) // 4)
        ]
        known = set(self._original.get_vocab().values()) | set(self._original.all_special_ids)
        if getattr(self._original, "separate_vocabs", False):
            known = set(self._original.target_encoder.values())
        for row in rows:
            ids = [token_id for token_id in row if token_id in known]
            expected = self._original.decode(ids, skip_special_tokens=True)
            self._compare(expected, self._target.decode(ids), f"text of the tokens {ids}")

    def _encode_source(self, text: str) -> list[int]:
        return list(self._original(text, verbose=False)["input_ids"])

    def _encode_target(self, text: str) -> list[int]:
        return list(self._original(text_target=text, verbose=False)["input_ids"])

    def _encode_plain_source(self, text: str) -> list[int]:
        encoded = self._original(text, add_special_tokens=False, verbose=False)
        return list(encoded["input_ids"])

    def _encode_plain_target(self, text: str) -> list[int]:
        if self._languages is not None and getattr(self._original, "tgt_lang", "") is None:
            # Some classes need one to encode a target, though it changes no token of the text.
            self._original.tgt_lang = next(iter(self._languages.target_codes))
        encoded = self._original(text_target=text, add_special_tokens=False, verbose=False)
        return list(encoded["input_ids"])

    def _compare(self, expected: Any, actual: Any, what: str) -> None:
        self._count += 1
        if expected != actual:
            raise VerificationError(
                f"{what} differ: transformers gives {expected!r}, the written tokenizer {actual!r}"
            )


def _reopen(tokenizer: FolderTokenizer) -> Tokenizer:
    """The tokenizer as the server reads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        tokenizer.save(str(path))
        return Tokenizer(path)


def _pick_languages(languages: Languages) -> list[tuple[str | None, str | None]]:
    """Pairs of a source's and a target's language."""
    targets = list(languages.target_codes)
    half = NUM_LANGUAGES // 2
    picked = list(dict.fromkeys([*targets[:half], *targets[-half:]]))
    if not languages.source_codes:
        return [(None, target) for target in picked]
    return list(zip(picked, reversed(picked), strict=True))
