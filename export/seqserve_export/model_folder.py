"""Writes a served model: the folder ``<store>/<name>/<version>/`` with its manifest.

The folder appears whole or not at all. It is built beside its place, under a name no server reads,
and renamed when everything in it was verified. What a killed export leaves there is removed by the
next one of the same model.
"""

import contextlib
import fcntl
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from seqserve_export.errors import ExportError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PREFIX = ".export-"
_LOCK_FILE = "lock"
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def to_name(text: str) -> str:
    """Makes a model name of a checkpoint's: what a name must not hold becomes a hyphen."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:128].rstrip("-")
    return name or "model"


def check_name(name: str) -> None:
    """Checks a model name.

    Raises:
        ExportError: It is no name.
    """
    if not _NAME.fullmatch(name):
        raise ExportError(
            "`name` must begin with a letter or digit and hold letters, digits, '.', '_' and '-', "
            f"at most 128, but is {name!r}"
        )


def check_version(version: str) -> None:
    """Checks a version.

    Raises:
        ExportError: It is no version.
    """
    if not _VERSION.fullmatch(version):
        raise ExportError(f"`version` must be a number from 1 to 999999999, but is {version!r}")


def check_absent(folder: Path) -> None:
    """Checks that a version does not exist yet.

    Raises:
        ExportError: It does.
    """
    if folder.exists():
        raise ExportError(f"{folder} exists; choose another --version, or replace it with --force")


@contextlib.contextmanager
def building(folder: Path, *, is_replacing: bool) -> Iterator[Path]:
    """Gives an empty folder to fill, which takes the place of ``folder`` in the end.

    When the body raises, nothing is left of what it wrote, and ``folder`` is as it was.

    Args:
        folder: The folder of a version.
        is_replacing: Whether an existing one is replaced or refused.

    Raises:
        ExportError: The version exists, or the store cannot be written.
    """
    model_folder = folder.parent
    made = _make_folders(model_folder)
    try:
        _remove_abandoned(model_folder)
        with (
            tempfile.TemporaryDirectory(prefix=_PREFIX, dir=model_folder) as name,
            (Path(name) / _LOCK_FILE).open("w") as lock,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            new = Path(name) / "new"
            new.mkdir()
            yield new
            if not is_replacing:
                check_absent(folder)
            _put(new, folder, Path(name) / "old")
    finally:
        for parent in made:
            if not any(parent.iterdir()):
                parent.rmdir()


def _remove_abandoned(model_folder: Path) -> None:
    """Removes what exports left that were killed: nobody holds the lock on it any more."""
    for leftover in model_folder.glob(f"{_PREFIX}*"):
        try:
            lock = (leftover / _LOCK_FILE).open()
        except FileNotFoundError:
            continue  # just made, or just removed, by another export
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(leftover)


def _put(new: Path, folder: Path, old: Path) -> None:
    """Renames ``new`` to ``folder``; what is there goes to ``old``, or comes back on failure."""
    if not folder.exists():
        new.rename(folder)
        return
    # A folder cannot be renamed onto another.
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise


def _make_folders(folder: Path) -> list[Path]:
    """Makes a folder and its parents; returns the ones that did not exist, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder} cannot be made: {error.strerror}") from error
    return missing
