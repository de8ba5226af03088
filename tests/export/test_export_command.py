"""The command: one line for every error, a report in the end, a version never lost."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from seqserve.manifest import read_manifest
from seqserve.task_record import Task
from seqserve_export import exporter
from seqserve_export.__main__ import main
from seqserve_export.model_folder import building, to_name
from seqserve_export.report import print_report
from tiny_checkpoint import make_tiny_checkpoint
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder


def _run(*arguments: object) -> Result:
    """Calls the command, without the graph that ``test_explanation`` is about."""
    return CliRunner().invoke(main, [*map(str, arguments), "--no-explain"])


def _check_error(result: Result, *parts: str) -> None:
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr


def test_export_writes_and_reports(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A version appears with its manifest, and the report names files, checks and time."""
    store = tmp_path / "store"
    result = _run(tiny_checkpoint, store, "--name", "spoken", "--version", "3")
    assert result.exit_code == 0, result.output
    assert [path.name for path in store.iterdir()] == ["spoken"]
    assert [path.name for path in (store / "spoken").iterdir()] == ["3"]
    manifest = read_manifest(store / "spoken" / "3")
    assert (manifest.name, manifest.version, manifest.explanation) == ("spoken", "3", None)
    for part in ("decode.onnx", "47,712 parameters", "fp32", "tolerance", "beam search", " s\n"):
        assert part in result.output


def test_choice_for_want_of_a_statement_is_noted(tmp_path: Path) -> None:
    """A bare encoder is pooled by the mean, and the report says so; --pooling says otherwise."""
    folder = make_tiny_encoder_folder(tmp_path / "bare", find_variant("bert"), Task.EMBED)
    result = _run(folder, tmp_path / "store")
    assert result.exit_code == 0, result.output
    assert "note: the folder does not say how token states become one" in result.output
    result = _run(folder, tmp_path / "store", "--pooling", "cls", "--version", "2")
    assert result.exit_code == 0, result.output
    assert "note:" not in result.output
    embedding = read_manifest(tmp_path / "store" / "bare" / "2").embedding
    assert embedding is not None
    assert embedding.pooling == "cls"


def test_pooling_is_refused_where_it_would_have_no_effect(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """An encoder-decoder pools nothing."""
    result = _run(tiny_checkpoint, tmp_path / "store", "--pooling", "cls")
    _check_error(result, "pooling 'cls' cannot be chosen for", "a bare encoder")


def test_dependence_on_the_batch_is_a_warning(tiny_store: Path) -> None:
    """The report warns when the last bits of a result depend on its batch."""
    manifest = read_manifest(tiny_store / "tiny" / "1")
    for is_batch_invariant in (True, False):
        report = exporter.Report(
            plan=exporter.Plan(
                folder=tiny_store,
                name="tiny",
                version="1",
                task=Task.GENERATE,
                family="transformer",
                dtype="fp32",
                num_parameters=1,
                source_bytes=1,
                notes=(),
            ),
            manifest=manifest.model_copy(update={"is_batch_invariant": is_batch_invariant}),
            seconds=1.0,
        )
        output = io.StringIO()
        print_report(report, Console(file=output))
        assert ("warning:" in output.getvalue()) is not is_batch_invariant


def test_name_comes_from_the_checkpoint() -> None:
    """Without --name the checkpoint's name is taken, made fit for a folder."""
    assert to_name("tiny-7") == "tiny-7"
    assert to_name("Org/Model: é v1") == "Org-Model-v1"
    assert to_name("../..") == "model"
    assert to_name("x" * 200) == "x" * 128


def test_existing_version_is_refused(tiny_checkpoint: Path, tiny_store: Path) -> None:
    """An existing version stays as it is; the message names the ways out."""
    manifest = (tiny_store / "tiny" / "1" / "seqserve.json").read_bytes()
    result = _run(tiny_checkpoint, tiny_store, "--name", "tiny")
    _check_error(result, "tiny/1 exists", "--version", "--force")
    assert (tiny_store / "tiny" / "1" / "seqserve.json").read_bytes() == manifest


def test_force_replaces(tiny_store: Path, tmp_path: Path) -> None:
    """With --force the version is replaced as a whole; other versions stay."""
    store = Path(shutil.copytree(tiny_store, tmp_path / "store"))
    shutil.copytree(store / "tiny" / "1", store / "tiny" / "2")
    (store / "tiny" / "1" / "left-over").write_text("old")
    checkpoint = make_tiny_checkpoint(tmp_path / "other", 5)
    result = _run(checkpoint, store, "--name", "tiny", "--force")
    assert result.exit_code == 0, result.output
    assert read_manifest(store / "tiny" / "1").provenance.source == "other"
    assert not (store / "tiny" / "1" / "left-over").exists()
    assert read_manifest(store / "tiny" / "2").provenance.source == "tiny"
    assert sorted(path.name for path in (store / "tiny").iterdir()) == ["1", "2"]


def _build(folder: Path, content: str, *, is_failing: bool) -> None:
    with building(folder, is_replacing=True) as new:
        (new / "file").write_text(content)
        if is_failing:
            raise RuntimeError


def test_failed_building_leaves_nothing(tmp_path: Path) -> None:
    """When building fails, the old version stays and the new one leaves no trace."""
    folder = tmp_path / "store" / "name" / "1"
    with pytest.raises(RuntimeError):
        _build(folder, "half", is_failing=True)
    assert list(tmp_path.iterdir()) == []
    _build(folder, "first", is_failing=False)
    with pytest.raises(RuntimeError):
        _build(folder, "second", is_failing=True)
    assert (folder / "file").read_text() == "first"
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--version", "0"], "`version` must be a number from 1"),
        (["--version", "1.2"], "but is '1.2'"),
        (["--name", "../elsewhere"], "`name` must begin with a letter or digit"),
        (["--name", ""], "but is ''"),
    ],
)
def test_wrong_options_are_one_line(
    arguments: list[str], part: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """A name or version that is none is refused, and nothing is written."""
    _check_error(_run(tiny_checkpoint, tmp_path / "store", *arguments), part)
    assert list(tmp_path.iterdir()) == []


def test_unknown_folders_are_one_line(tmp_path: Path) -> None:
    """What was found and what is supported is said, for every kind of wrong folder."""
    _check_error(
        _run(tmp_path / "absent", tmp_path / "store"),
        "absent does not exist, and is no id of the hub",
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    _check_error(_run(empty, tmp_path / "store"), "neither modules.json nor config.json", "bert")
    config = empty / "config.json"
    config.write_text('{"model_type": "whisper"}')
    _check_error(_run(empty, tmp_path / "store"), "'whisper'", "seqserve-transformer/1")
    config.write_text('{"format": "seqserve-transformer/9"}')
    _check_error(_run(empty, tmp_path / "store"), "'seqserve-transformer/9'", "supported are")
    config.write_text("{")
    _check_error(_run(empty, tmp_path / "store"), "config.json is not JSON")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("section", "changes", "parts"),
    [
        ("transformer", {"target_vocabulary_size": 40}, ["target_embedding", "shape (49, 32)"]),
        ("transformer", {"max_target_length": 10}, ["position.weight has shape"]),
        ("transformer", {"head_size": 12}, ["head_size must be a multiple of 8"]),
        ("transformer", {"colour": 1}, ["config.json is malformed", "colour"]),
        ("transformer", {"norm": "batch"}, ["norm: Input should be 'layer' or 'rms'"]),
        ("transformer", {"model_size": "32"}, ["model_size: Input should be a valid integer"]),
        ("generation", {"eos_token_id": None}, ["eos_token_id: Input should be a valid"]),
        ("generation", {"eos_token_id": 49}, ["`eos_token_id`", "vocabulary of 49", "is 49"]),
        ("generation", {"max_new_tokens": 33}, ["`max_new_tokens`", "32, but is 33"]),
        ("generation", {"num_beams": 0}, ["`num_beams` must be from 1"]),
        ("generation", {"length_penalty": 5.5}, ["`length_penalty`", "at most 5, but is 5.5"]),
        ("generation", {"repetition_penalty": 0.0}, ["`repetition_penalty`", "at least 0.01"]),
        (
            "generation",
            {"temperature": 0.0},
            ["`temperature` must be above 0 and finite, but is 0"],
        ),
        ("generation", {"top_p": 1.5}, ["`top_p` must be above 0 and at most 1, but is 1.5"]),
    ],
)
def test_wrong_configurations_are_one_line(
    section: str,
    changes: dict[str, Any],
    parts: list[str],
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    """A configuration that fits neither weights nor itself is refused by name."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    config = json.loads((folder / "config.json").read_bytes())
    config[section] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    _check_error(_run(folder, tmp_path / "store"), *parts)
    assert not (tmp_path / "store").exists()


def test_unknown_parts_of_a_configuration_are_one_line(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """A setting in the wrong place would otherwise be ignored."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    config = json.loads((folder / "config.json").read_bytes())
    config |= {"suppressed_tokens": [3], "tasks": ["generate"]}
    (folder / "config.json").write_text(json.dumps(config))
    _check_error(
        _run(folder, tmp_path / "store"),
        "config.json sets `suppressed_tokens`, `tasks`, which nothing reads",
        "it may set `format`, `name`, `transformer`, `generation`",
    )
    assert not (tmp_path / "store").exists()


def test_broken_weights_are_one_line(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Weights that were cut off are refused."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    _check_error(_run(folder, tmp_path / "store"), "model.safetensors cannot be read")


def test_samples_are_used(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of samples.txt are what the searches are compared on."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    (folder / "samples.txt").write_text("a b c\n\n  d e  \n", encoding="utf-8")
    report = exporter.export_model(folder, tmp_path / "store")
    greedy = next(r for r in report.manifest.verification if r.check.startswith("greedy"))
    assert greedy.count == 2


def test_module_runs_as_a_program() -> None:
    """``python -m seqserve_export`` prints its help."""
    command = [sys.executable, "-m", "seqserve_export", "--help"]
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "SOURCE STORE" in result.stdout
    assert "--allow-pickle" in result.stdout
