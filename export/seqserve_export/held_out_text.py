"""Which texts a model in a smaller format is judged on: none of those it was calibrated on.

Of texts that were given, those count that calibration can do without. Where they are few, built-in
sentences of many registers and languages are added, and first sentences of the documentation of
Python's standard library, which every installation brings along; of both, those the tokenizer was
made for. Which sentences the library has, its version decides; the report says how many were taken.
"""

import ast
import functools
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from seqserve_export.calibration_text import CalibrationTexts, choose_readable, spread
from seqserve_export.tokenization.folder_tokenizers import FolderTokenizer

MAX_HELD_OUT = 512
"""Texts a model is judged on at most, unless it is large."""
ENOUGH_TEXTS = 200
"""So many given texts need no others beside them: one wrong label among them is half a percent."""
_LEAST_GIVEN = 50
"""Fewer given texts are calibrated on, all of them."""
_BUILT_IN_FILE = Path(__file__).with_name("held_out.txt")
_LIBRARY_MODULES = (
    *("argparse", "ast", "bdb", "calendar", "cmd", "code", "codecs", "collections"),
    *("concurrent", "configparser", "contextlib", "copy", "csv", "dataclasses", "difflib"),
    *("dis", "enum", "filecmp", "fileinput", "fractions", "ftplib", "functools", "getpass"),
    *("gettext", "glob", "gzip", "hashlib", "heapq", "hmac", "html", "http", "imaplib"),
    *("inspect", "ipaddress", "json", "linecache", "locale", "logging", "mailbox", "mimetypes"),
    *("numbers", "optparse", "os", "pathlib", "pdb", "pickle", "pickletools", "platform"),
    *("plistlib", "poplib", "pprint", "profile", "pstats", "pydoc", "queue", "quopri"),
    *("random", "sched", "secrets", "selectors", "shelve", "shlex", "shutil", "smtplib"),
    *("socket", "socketserver", "statistics", "string", "subprocess", "symtable", "tarfile"),
    *("tempfile", "textwrap", "threading", "timeit", "tokenize", "trace", "traceback", "types"),
    *("typing", "urllib", "uuid", "venv", "warnings", "wave", "weakref", "webbrowser"),
    *("wsgiref", "xmlrpc", "zipapp", "zipfile"),
)
"""Modules whose documentation is read; more than are needed, so that one may go."""
_LEAST_WORDS, _MAX_WORDS = 4, 40


def split_given(
    given: Sequence[str], chosen: CalibrationTexts
) -> tuple[CalibrationTexts, tuple[str, ...]]:
    """Divides texts that were given into some to calibrate on and others to judge by.

    Args:
        given: All of them; none if whoever exports gave none.
        chosen: Those that calibration would take.

    Returns:
        What calibration takes now, and the others: those it did not want, or else a fifth of those
        it did.
    """
    if len(given) < _LEAST_GIVEN:
        return chosen, ()
    kept = dict.fromkeys(chosen.texts)
    if len(dict.fromkeys(given)) - len(kept) < ENOUGH_TEXTS:
        kept = dict.fromkeys(text for place, text in enumerate(kept) if place % 5 != 4)
    origin = f"{len(kept):,} of {len(given):,} texts given"
    others = tuple(text for text in dict.fromkeys(given) if text not in kept)
    return CalibrationTexts(tuple(kept), origin), others


def choose_held_out(
    others: Sequence[str],
    calibrated_on: Sequence[str],
    tokenizer: FolderTokenizer,
    max_texts: int = MAX_HELD_OUT,
) -> CalibrationTexts:
    """Chooses the texts to judge a model by.

    Args:
        others: Texts that were given and not calibrated on.
        calibrated_on: Texts that were.
        tokenizer: Of sources.
        max_texts: Most to take.

    Returns:
        The texts; none if nothing was given and the tokenizer reads none of the others.
    """
    seen = set(calibrated_on)
    parts = [(spread([text for text in others if text not in seen], max_texts), "texts given")]
    if len(parts[0][0]) < ENOUGH_TEXTS:
        seen.update(parts[0][0])
        for texts, kind in (
            (read_held_out_texts(), "built-in texts"),
            (read_documentation(), "sentences of Python's documentation"),
        ):
            num_left = max_texts - sum(len(part) for part, _ in parts)
            readable = choose_readable([text for text in texts if text not in seen], tokenizer)
            parts.append((spread(readable, num_left), kind))
    return CalibrationTexts(
        tuple(text for part, _ in parts for text in part),
        ", ".join(f"{len(part):,} {kind}" for part, kind in parts if part),
    )


def read_held_out_texts() -> tuple[str, ...]:
    """Reads the built-in sentences, none of which models are calibrated on."""
    return tuple(_BUILT_IN_FILE.read_text(encoding="utf-8").splitlines())


@functools.cache
def read_documentation() -> tuple[str, ...]:
    """First sentences of what the standard library says of itself, each once.

    The modules are read, not imported: what is imported may run, and may have been compiled without
    its documentation.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    sentences: dict[str, None] = {}
    for name in _LIBRARY_MODULES:
        for path in (root / f"{name}.py", *sorted((root / name).rglob("*.py"))):
            if path.is_file():
                sentences |= dict.fromkeys(_find_sentences(ast.parse(path.read_bytes())))
    return tuple(sentences)


def _find_sentences(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            sentence, stop, _ = paragraph.partition(". ")
            num_words = len(sentence.split())
            # What begins in lower case is a signature or a name, what ends without a stop a title.
            is_sentence = sentence[:1].isupper() and (stop or sentence.endswith("."))
            if is_sentence and _LEAST_WORDS <= num_words <= _MAX_WORDS:
                yield sentence + stop.strip()
