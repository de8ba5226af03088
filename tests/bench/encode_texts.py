"""What the encode benchmark embeds: paragraphs of the documentation of Python's standard library.

Real text has the lengths that matter: most paragraphs are short, some are long. Those of 4 to 256
tokens are taken, special tokens included, that are text: prompts, rules and tables are not.
"""

import ast
import inspect
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from bench.workload import MeasurementError

_SHORTEST, _LONGEST = 4, 256
_LETTERS = 0.85
"""Least share of letters and spaces in what is text."""
_SHORT = range(8, 17)
"""Tokens of a short sentence."""
_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "pydoc_data"}


def read_texts(tokenizer_file: Path, num_texts: int, seed: int = 0) -> list[str]:
    """Some of the paragraphs, in random order.

    Raises:
        MeasurementError: There are not as many.
    """
    tokenizer = _open_tokenizer(tokenizer_file)
    paragraphs = list(dict.fromkeys(_read_paragraphs()))
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(paragraphs)]
    texts = [
        text
        for text, length in zip(paragraphs, lengths, strict=True)
        if _SHORTEST <= length <= _LONGEST
    ]
    if len(texts) < num_texts:
        raise MeasurementError(
            f"the standard library of this Python has {len(texts)} paragraphs, {num_texts} are "
            "needed; is its source installed?"
        )
    return random.Random(seed).sample(texts, num_texts)


def choose_short(tokenizer_file: Path, texts: list[str]) -> list[str]:
    """Those texts that are short sentences."""
    encodings = _open_tokenizer(tokenizer_file).encode_batch_fast(texts)
    return [
        text for text, encoding in zip(texts, encodings, strict=True) if len(encoding.ids) in _SHORT
    ]


def describe_lengths(tokenizer_file: Path, texts: list[str]) -> dict[str, float]:
    """Mean and quantiles of the numbers of tokens."""
    encodings = _open_tokenizer(tokenizer_file).encode_batch_fast(texts)
    lengths = sorted(len(encoding.ids) for encoding in encodings)
    return {
        "mean": sum(lengths) / len(lengths),
        **{f"p{part}": lengths[len(lengths) * part // 100] for part in (10, 50, 90)},
        "max": lengths[-1],
    }


def _open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a folder, without what the folder says of cutting and padding."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_paragraphs() -> Iterator[str]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if not _LEFT_OUT.isdisjoint(path.relative_to(root).parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node, clean=False)
                for paragraph in inspect.cleandoc(text or "").split("\n\n"):
                    text = " ".join(paragraph.split())
                    if _is_prose(text):
                        yield text


def _is_prose(text: str) -> bool:
    """Whether nearly all of it is words."""
    num_letters = sum(one.isalpha() or one == " " for one in text)
    return bool(text) and num_letters >= _LETTERS * len(text)
