"""Folders of served models that are copied, spoiled and sealed again."""

import json
import shutil
from pathlib import Path
from typing import Any

from seqserve.manifest import MANIFEST_FILE, make_file_record


def copy_version(folder: Path, target: Path) -> Path:
    """Puts a model into another place of a store, as a version that is called after it.

    The manifest comes last, as whoever copies a model should have it.
    """
    target.mkdir(parents=True)
    for path in folder.iterdir():
        if path.name != MANIFEST_FILE:
            shutil.copy(path, target / path.name)
    manifest = read_json(folder) | {"name": target.parent.name, "version": target.name}
    write_json(target, manifest)
    return target


def seal(folder: Path) -> None:
    """Lists the files of a folder as they are now, so that only a look at them tells."""
    manifest = read_json(folder)
    for name in manifest["files"]:
        manifest["files"][name] = make_file_record(folder / name).model_dump()
    write_json(folder, manifest)


def read_json(folder: Path) -> dict[str, Any]:
    """The manifest of a folder."""
    content: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    return content


def write_json(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest of a folder, whole at once."""
    new = folder / "new.json"
    new.write_text(json.dumps(manifest), encoding="utf-8")
    new.rename(folder / MANIFEST_FILE)


def write_labels(store: Path, name: str, **labels: str) -> None:
    """Writes the labels of a model's versions, whole at once."""
    new = store / name / "labels.new"
    new.write_text(json.dumps(labels), encoding="utf-8")
    new.rename(store / name / "labels.json")
