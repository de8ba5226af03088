"""What a store holds, and what follows from a look at it."""

import json
import os
from pathlib import Path

import pytest
import structlog

from seqserve.errors import ModelFolderError
from seqserve.store import Key, find_folders, read_labels, scan
from seqserve.store_watch import Plan, StorePlan

NO_PLAN = Plan([], [])


def write_model(store: Path, key: str, content: bytes = b"graph", size: int | None = None) -> Path:
    """A folder with one file, which its manifest lists with a size."""
    folder = store / key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.onnx").write_bytes(content)
    size = len(content) if size is None else size
    manifest = {"files": {"a.onnx": {"size_bytes": size}}}
    (folder / "seqserve.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def remove_model(folder: Path) -> None:
    """Removes the folder."""
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def keys(*names: str) -> list[Key]:
    """``tiny/1`` as name and version."""
    pairs = [name.split("/") for name in names]
    return [(name, version) for name, version in pairs]


def test_folders_that_are_hidden_are_no_models(tmp_path: Path) -> None:
    """What an export has not ended, and what Kubernetes keeps mounted files in."""
    for key in ("tiny/1", "tiny/.export-x", ".trash/1"):
        write_model(tmp_path, key)
    assert find_folders(tmp_path) == [tmp_path / "tiny" / "1"]
    assert list(scan(tmp_path)) == keys("tiny/1")


def test_manifest_that_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A look at the store ends, whatever lies in it."""
    write_model(tmp_path, "tiny/1")
    (tmp_path / "tiny" / "2").mkdir()
    os.mkfifo(tmp_path / "tiny" / "2" / "seqserve.json")
    assert list(scan(tmp_path)) == keys("tiny/1")


def test_absent_and_empty_stores_are_refused(tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(ModelFolderError, match="none is not a folder; export a model into it"):
        find_folders(tmp_path / "none")
    with pytest.raises(ModelFolderError, match="holds no model: there is no NAME/VERSION/seqserve"):
        find_folders(tmp_path)


def test_labels_are_read(tmp_path: Path) -> None:
    """Versions by label; none without a file."""
    assert read_labels(tmp_path) == {}
    (tmp_path / "labels.json").write_text('{"stable": "3", "canary": "4"}', encoding="utf-8")
    assert read_labels(tmp_path) == {"stable": "3", "canary": "4"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "labels: Invalid JSON: EOF while parsing a value at line 1 column 0"),
        ('["stable"]', "labels: Input should be an object"),
        ('{"stable": 3}', "stable: Input should be a valid string"),
        ('{"stable": "newest"}', "stable: String should match pattern '^[1-9][0-9]{0,8}$'"),
        ('{"4": "4"}', "4.[key]: String should match pattern '^[a-z][a-z0-9_-]{0,62}$'"),
    ],
)
def test_malformed_labels_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    """A label is a word, what it means a version."""
    path = tmp_path / "labels.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelFolderError) as caught:
        read_labels(tmp_path)
    assert str(caught.value) == (
        f"{path} is malformed: {problem}; it says which version each label means, as in "
        '{"stable": "3", "canary": "4"}'
    )


def test_new_versions_are_loaded_in_their_order(tmp_path: Path) -> None:
    """Once, by number, and not those that serve already."""
    plan = StorePlan()
    write_model(tmp_path, "tiny/1")
    assert plan.decide(scan(tmp_path), {("tiny", "1")}) == NO_PLAN
    for version in ("10", "9"):
        write_model(tmp_path, f"tiny/{version}")
    served = {("tiny", "1")}
    assert plan.decide(scan(tmp_path), served).loads == keys("tiny/9", "tiny/10")
    served |= set(keys("tiny/9", "tiny/10"))
    assert plan.decide(scan(tmp_path), served) == NO_PLAN


def test_refused_version_is_tried_again_when_it_has_changed(tmp_path: Path) -> None:
    """Not at every look; a new manifest or a new file is a reason."""
    plan = StorePlan()
    write_model(tmp_path, "tiny/1")
    assert plan.decide(scan(tmp_path), set()).loads == keys("tiny/1")
    assert plan.decide(scan(tmp_path), set()) == NO_PLAN
    write_model(tmp_path, "tiny/1", b"other graph")
    assert plan.decide(scan(tmp_path), set()).loads == keys("tiny/1")
    assert plan.decide(scan(tmp_path), set()) == NO_PLAN


def test_version_that_is_being_copied_is_waited_for(tmp_path: Path) -> None:
    """Whichever file comes last; the log says once what it is."""
    plan = StorePlan()
    folder = write_model(tmp_path, "tiny/1", b"", size=5)
    with structlog.testing.capture_logs() as logs:
        assert plan.decide(scan(tmp_path), set()) == NO_PLAN
        assert plan.decide(scan(tmp_path), set()) == NO_PLAN
    assert [(one["event"], one["waiting_for"]) for one in logs] == [
        ("model folder is not complete", "a.onnx")
    ]
    (folder / "a.onnx").unlink()
    assert plan.decide(scan(tmp_path), set()) == NO_PLAN
    (folder / "a.onnx").write_bytes(b"graph")
    assert plan.decide(scan(tmp_path), set()).loads == keys("tiny/1")


def test_malformed_manifest_is_for_the_loader_to_refuse(tmp_path: Path) -> None:
    """It is not passed over in silence."""
    folder = write_model(tmp_path, "tiny/1")
    (folder / "seqserve.json").write_text("{", encoding="utf-8")
    assert StorePlan().decide(scan(tmp_path), set()).loads == keys("tiny/1")


def test_version_that_a_call_unloaded_stays_unloaded(tmp_path: Path) -> None:
    """Until it has changed, or was away."""
    plan = StorePlan()
    for key in ("tiny/1", "tiny/2"):
        write_model(tmp_path, key)
    plan.decide(scan(tmp_path), set(keys("tiny/1", "tiny/2")))
    assert plan.decide(scan(tmp_path), set(keys("tiny/1"))) == NO_PLAN
    remove_model(tmp_path / "tiny" / "2")
    assert plan.decide(scan(tmp_path), set(keys("tiny/1"))) == NO_PLAN
    write_model(tmp_path, "tiny/2")
    assert plan.decide(scan(tmp_path), set(keys("tiny/1"))).loads == keys("tiny/2")


def test_version_is_unloaded_when_it_is_missing_twice(tmp_path: Path) -> None:
    """A folder may be replaced by way of removing it."""
    plan = StorePlan()
    served = set(keys("tiny/1", "tiny/2"))
    for key in ("tiny/1", "tiny/2"):
        write_model(tmp_path, key)
    remove_model(tmp_path / "tiny" / "1")
    assert plan.decide(scan(tmp_path), served) == NO_PLAN
    write_model(tmp_path, "tiny/1")
    assert plan.decide(scan(tmp_path), served) == NO_PLAN
    remove_model(tmp_path / "tiny" / "1")
    assert plan.decide(scan(tmp_path), served) == NO_PLAN
    assert plan.decide(scan(tmp_path), served).unloads == keys("tiny/1")


def test_nothing_is_unloaded_for_an_empty_store(tmp_path: Path) -> None:
    """That is what a volume that was lost looks like."""
    plan = StorePlan()
    served = set(keys("tiny/1"))
    for _ in range(3):
        assert plan.decide(scan(tmp_path), served) == NO_PLAN
    with pytest.raises(ModelFolderError, match="is not a folder any more"):
        scan(tmp_path / "none")


def test_change_of_a_served_version_is_warned_of(tmp_path: Path) -> None:
    """It has no effect, and the log says so once."""
    plan = StorePlan()
    served = set(keys("tiny/1"))
    write_model(tmp_path, "tiny/1")
    plan.decide(scan(tmp_path), served)
    write_model(tmp_path, "tiny/1", b"other graph")
    with structlog.testing.capture_logs() as logs:
        assert plan.decide(scan(tmp_path), served) == NO_PLAN
        assert plan.decide(scan(tmp_path), served) == NO_PLAN
    assert [(one["log_level"], one["model"]) for one in logs] == [("warning", "tiny/1")]
