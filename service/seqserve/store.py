"""The store: the models its folders hold, and the labels of their versions.

Models are ``STORE/NAME/VERSION/seqserve.json``; labels are ``STORE/NAME/labels.json``, an object
such as ``{"stable": "3", "canary": "4"}``.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pydantic

from seqserve.errors import ModelFolderError
from seqserve.manifest import MANIFEST_FILE

LABELS_FILE = "labels.json"
STABLE = "stable"
"""The label of the version that answers requests which name none."""

_Label = Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
_Version = Annotated[str, pydantic.Field(pattern=r"^[1-9][0-9]{0,8}$")]
_LABELS = pydantic.TypeAdapter(dict[_Label, _Version])

Key = tuple[str, str]
"""Name and version, as the folders are called."""
Labels = dict[str, str]
"""Versions of one model by label."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells whether a folder is still the one that was looked at."""

    manifest: str
    """SHA-256 of the manifest."""
    files: tuple[tuple[str, int, int], ...]
    """Name, size and time of change, in nanoseconds, of the files beside it."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder of the store that has a manifest."""

    path: Path
    fingerprint: Fingerprint
    missing: str
    """The first file that is not there or not whole yet; empty if all are."""


def find_folders(store: Path) -> list[Path]:
    """The model folders of a store, sorted.

    Raises:
        ModelFolderError: The store is absent or holds no model.
    """
    if not store.is_dir():
        raise ModelFolderError(f"{store} is not a folder; export a model into it first")
    folders = list(_folders(store))
    if not folders:
        raise ModelFolderError(
            f"{store} holds no model: there is no NAME/VERSION/{MANIFEST_FILE} in it; "
            "write one with seqserve-export"
        )
    return folders


def scan(store: Path) -> dict[Key, ModelFolder]:
    """Looks at all model folders of a store; it may be changed meanwhile.

    Raises:
        ModelFolderError: The store is absent.
        OSError: It cannot be read.
    """
    if not store.is_dir():
        raise ModelFolderError(f"{store} is not a folder any more")
    found = {}
    for folder in _folders(store):
        # A pipe would be waited for, also when the server is to stop.
        if not (folder / MANIFEST_FILE).is_file():
            continue
        try:
            found[folder.parent.name, folder.name] = _look_at(folder)
        except FileNotFoundError:  # removed since it was listed
            continue
    return found


def read_labels(folder: Path) -> Labels:
    """The labels of a model's versions; none without a file.

    Args:
        folder: STORE/NAME.

    Raises:
        ModelFolderError: The file cannot be read or is malformed.
    """
    path = folder / LABELS_FILE
    try:
        return _LABELS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}") from error
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'labels'}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise ModelFolderError(
            f"{path} is malformed: {problems}; it says which version each label means, as in "
            '{"stable": "3", "canary": "4"}'
        ) from error


def _folders(store: Path) -> Iterator[Path]:
    """Those that are not hidden: Kubernetes keeps mounted files there, and exports begin there."""
    for path in sorted(store.glob(f"*/*/{MANIFEST_FILE}")):
        folder = path.parent
        if not (folder.name.startswith(".") or folder.parent.name.startswith(".")):
            yield folder


def _look_at(folder: Path) -> ModelFolder:
    manifest = (folder / MANIFEST_FILE).read_bytes()
    files = []
    missing = ""
    for name, size in _listed_files(manifest):
        try:
            status = (folder / name).stat()
        except FileNotFoundError:
            missing = missing or name
            continue
        files.append((name, status.st_size, status.st_mtime_ns))
        if status.st_size != size:
            missing = missing or name
    digest = hashlib.sha256(manifest).hexdigest()
    return ModelFolder(folder, Fingerprint(digest, tuple(files)), missing)


def _listed_files(manifest: bytes) -> list[tuple[str, Any]]:
    """Names and sizes of the files of a manifest; what is malformed is for others to refuse."""
    try:
        files = json.loads(manifest)["files"].items()
        return [(Path(name).name, record["size_bytes"]) for name, record in files]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
