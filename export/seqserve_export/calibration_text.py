"""Which texts a model is calibrated on: given ones, those of its checkpoint, or built-in ones.

The built-in ones are sentences of many registers in thirty languages. A model is calibrated on
those that its tokenizer was made for: few unknown tokens, and not letter by letter.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seqserve_export.errors import CheckpointError
from seqserve_export.samples import SAMPLES
from seqserve_export.tokenization.folder_tokenizers import FolderTokenizer
from seqserve_export.verification import SEED, make_sources

MAX_TEXTS = 512
"""Of more texts than that, some are taken, spread over all; it makes hardly any difference."""
_NUM_RANDOM_SOURCES = 64
_MAX_RANDOM_LENGTH = 16
_BUILT_IN_FILE = Path(__file__).with_name("calibration.txt")
_MAX_UNKNOWN_SHARE = 0.1
_MAX_TOKENS_PER_BYTE = 0.34
"""Words in pieces made for their language take 0.1 to 0.3 tokens per byte of UTF-8, and Chinese
letter by letter a third; words in pieces of another language take more."""


@dataclasses.dataclass(frozen=True)
class CalibrationTexts:
    """Texts, and where they are from."""

    texts: tuple[str, ...]
    origin: str
    """For the report: ``40 built-in texts``."""


def choose_texts(
    given: Sequence[str],
    samples: Sequence[str],
    tokenizer: FolderTokenizer,
    *,
    max_texts: int = MAX_TEXTS,
) -> CalibrationTexts:
    """Chooses the texts to calibrate a model on.

    Args:
        given: Texts whoever exports chose; if there are any, they are taken.
        samples: Those of the checkpoint, which come next. The samples every checkpoint is verified
            with are none: they are meant to be unusual.
        tokenizer: Of sources.
        max_texts: Most to take of those that were not given.

    Returns:
        The texts; none if the tokenizer reads none of the built-in ones.

    Raises:
        CheckpointError: Texts were given, and the tokenizer knows next to nothing in any of them.
    """
    if given:
        if not any(_is_known(text, tokenizer) for text in given):
            raise CheckpointError(
                f"each of the {len(given):,} texts to calibrate with has more than "
                f"{_MAX_UNKNOWN_SHARE:.0%} unknown tokens; give texts in a language of the model"
            )
        texts = spread(given, MAX_TEXTS)
        share = f"{len(texts):,} of " if len(texts) < len(given) else ""
        return CalibrationTexts(texts, f"{share}{len(given):,} texts given")
    if samples and tuple(samples) != SAMPLES:
        texts = spread(samples, max_texts)
        return CalibrationTexts(texts, f"{len(texts)} samples of the checkpoint")
    texts = spread(choose_readable(read_built_in_texts(), tokenizer), max_texts)
    return CalibrationTexts(texts, f"{len(texts)} built-in texts")


def make_random_sources(
    vocabulary_size: int,
    max_length: int,
    num_sources: int = _NUM_RANDOM_SOURCES,
    seed: int = SEED,
) -> tuple[list[list[int]], str]:
    """Sources of random tokens, for a tokenizer that reads none of the built-in texts.

    Returns:
        Tokens of each, and their origin for the report.
    """
    sources = make_sources(
        np.random.default_rng(seed),
        num_sources,
        vocabulary_size,
        min(_MAX_RANDOM_LENGTH, max_length),
    )
    return sources, f"{len(sources)} sources of random tokens"


def read_built_in_texts() -> tuple[str, ...]:
    """Reads the built-in sentences."""
    return tuple(_BUILT_IN_FILE.read_text(encoding="utf-8").splitlines())


def read_texts(path: Path) -> tuple[str, ...]:
    """Reads a file of texts, one a line; blank lines are no texts.

    Raises:
        CheckpointError: It cannot be read, is not UTF-8, or holds no text.
    """
    try:
        # With a byte order mark, which would become part of the first text, or without.
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CheckpointError(
            f"{path} is not UTF-8 in line {line} (byte {error.start}); save it as UTF-8"
        ) from error
    texts = tuple(line for line in content.splitlines() if line.strip())
    if not texts:
        raise CheckpointError(
            f"{path} holds no text to calibrate with; write one text a line, or leave "
            "--calibration out"
        )
    return texts


def choose_readable(texts: Sequence[str], tokenizer: FolderTokenizer) -> tuple[str, ...]:
    """Those texts whose script and language a tokenizer was made for.

    One that reads letter by letter is made for all letters it knows.
    """
    costs = {
        text: len(tokenizer.encode(text, add_special_tokens=False).ids) / len(text.encode())
        for text in texts
        if _is_known(text, tokenizer)
    }
    limit = max(_MAX_TOKENS_PER_BYTE, 1.5 * min(costs.values(), default=0.0))
    return tuple(text for text, cost in costs.items() if cost <= limit)


def _is_known(text: str, tokenizer: FolderTokenizer) -> bool:
    """Whether a text has tokens, and few of them are unknown."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    tokens = [str(tokenizer.id_to_token(token_id)) for token_id in encoding.ids]
    num_unknown = sum(token.strip("<[]>").lower() == "unk" for token in tokens)
    return bool(tokens) and num_unknown <= _MAX_UNKNOWN_SHARE * len(tokens)


def spread(texts: Sequence[str], max_texts: int) -> tuple[str, ...]:
    """At most so many texts, evenly spread over all."""
    num_kept = min(len(texts), max_texts)
    return tuple(texts[index * len(texts) // num_kept] for index in range(num_kept))
