"""How the export command behaves: number formats, plans, hub ids, signals and kills."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import huggingface_hub
import pytest
from click.testing import CliRunner, Result
from huggingface_hub.errors import LocalEntryNotFoundError

from seqserve.manifest import LayerForm, Manifest, read_manifest
from seqserve_export import model_folder, quantization
from seqserve_export.__main__ import main
from seqserve_export.errors import CheckpointError, ExportError
from seqserve_export.hub import find_source
from tiny_checkpoint import make_tiny_checkpoint
from tiny_hugging_face import make_hugging_face_folder
from tiny_sentence_folder import make_tiny_sentence_folder


def run(*arguments: object) -> Result:
    """Calls the command, without the graph that ``test_explanation`` is about."""
    return CliRunner().invoke(main, [*map(str, arguments), "--no-explain"])


def export(folder: Path, store: Path, *arguments: str) -> Manifest:
    """Exports as ``m/1``."""
    result = run(folder, store, "--name", "m", *arguments)
    assert result.exit_code == 0, result.output
    return read_manifest(store / "m" / "1")


@pytest.fixture(scope="module")
def sizeable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint large enough for its weights to outweigh all else."""
    return make_tiny_checkpoint(
        tmp_path_factory.mktemp("sizeable") / "model",
        8,
        model_size=128,
        num_heads=4,
        head_size=32,
        feed_forward_size=256,
    )


def measure(manifest: Manifest) -> int:
    """Bytes of the weights."""
    return manifest.files["weights.data"].size_bytes


@pytest.fixture(scope="module")
def fp32(sizeable: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """It in fp32."""
    return export(sizeable, tmp_path_factory.mktemp("store"))


def test_fp32_decides_as_the_original(fp32: Manifest) -> None:
    """Every greedy decision is the same."""
    assert fp32.dtype == "fp32"
    assert fp32.greedy_agreement == 1.0
    assert fp32.layers is None


@pytest.mark.parametrize(("dtype", "share"), [("int8", 0.35), ("fp16", 0.55)])
def test_smaller_formats(
    sizeable: Path, fp32: Manifest, tmp_path: Path, dtype: str, share: float
) -> None:
    """They are smaller, as invariant as fp32, and say how often they decide otherwise."""
    manifest = export(sizeable, tmp_path, "--dtype", dtype)
    assert manifest.dtype == dtype
    assert manifest.is_batch_invariant
    assert measure(manifest) < share * measure(fp32)
    assert manifest.greedy_agreement is not None
    assert 0.7 < manifest.greedy_agreement <= 1.0


@pytest.mark.parametrize("dtype", ["int8", "fp16"])
def test_encoders_in_smaller_formats(tmp_path: Path, dtype: str) -> None:
    """Embeddings keep their direction: a cosine of 0.99 at least."""
    folder = make_tiny_sentence_folder(tmp_path / "source", 1)
    manifest = export(folder, tmp_path / "store", "--dtype", dtype)
    assert manifest.dtype == dtype
    (cosine,) = [record for record in manifest.verification if "cosine" in record.check]
    assert cosine.max_abs_difference <= 0.01


def test_layers_that_would_be_too_far_off_stay(
    sizeable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers further off than is allowed are kept in fp32, and named."""
    monkeypatch.setattr(quantization, "MAX_RELATIVE_ERROR", 0.0)
    result = run(sizeable, tmp_path / "store", "--name", "m", "--dtype", "int8")
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    layers = read_manifest(tmp_path / "store" / "m" / "1").layers
    assert layers is not None
    assert {layer.form for layer in layers} == {"fp32"}
    assert f"{len(layers)} layers stay in fp32, since int8 would be too far off" in output
    assert "decoder.layers.0.feed_forward.down" in output


def test_report_lists_layers(sizeable: Path, tmp_path: Path) -> None:
    """The console shows the worst ten and counts by form; the manifest has all."""
    result = run(sizeable, tmp_path, "--name", "m", "--dtype", "int8")
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    layers = read_manifest(tmp_path / "m" / "1").layers
    assert layers is not None
    assert len(layers) > 10
    ranked = sorted(layers, key=lambda layer: layer.relative_error, reverse=True)
    for layer in ranked[:10]:
        assert f"{layer.name} │ {layer.form}" in output
    assert sum(f"{layer.name} │" in output for layer in layers) == 10
    counts = [sum(layer.form == form for layer in layers) for form in get_args(LayerForm)]
    assert "{} static, {} smoothed, {} rowwise, {} fp32".format(*counts) in output
    assert "calibrated on │ 64 sources of random tokens" in output
    assert "greedy agreement" in output


def test_calibration_texts_are_read(sizeable: Path, tmp_path: Path) -> None:
    """Other texts give other ranges; texts that cannot be used are refused."""
    texts = tmp_path / "texts.txt"
    texts.write_text("a b c\n\nd e f g h\n", encoding="utf-8")
    own = export(sizeable, tmp_path / "own", "--dtype", "int8", "--calibration", str(texts))
    texts.write_text("z\n", encoding="utf-8")
    other = export(sizeable, tmp_path / "other", "--dtype", "int8", "--calibration", str(texts))
    assert own.files["weights.data"] != other.files["weights.data"] or (
        own.files["decode.onnx"] != other.files["decode.onnx"]
    )
    texts.write_text("\n \n", encoding="utf-8")
    empty = run(sizeable, tmp_path / "none", "--dtype", "int8", "--calibration", texts)
    assert empty.exit_code == 1
    assert empty.stderr.startswith(f"error: {texts} holds no text to calibrate with")
    texts.write_text("東京\n", encoding="utf-8")
    unknown = run(sizeable, tmp_path / "none", "--dtype", "int8", "--calibration", texts)
    assert unknown.exit_code == 1
    assert "has more than 10% unknown tokens" in unknown.stderr
    without_effect = run(sizeable, tmp_path / "none", "--dry-run", "--calibration", texts)
    assert (without_effect.exit_code, without_effect.stderr) == (
        1,
        "error: --calibration has no effect on fp32, which needs no number ranges; add --dtype "
        "int8 or leave it out\n",
    )
    absent = run(sizeable, tmp_path / "none", "--calibration", tmp_path / "absent.txt")
    assert absent.exit_code == 2
    assert "absent.txt' does not exist" in " ".join(absent.stderr.split())
    assert not (tmp_path / "none").exists()


def test_plan_writes_nothing(tmp_path: Path) -> None:
    """--dry-run reads everything, says what would be done, and leaves no folder."""
    folder = make_hugging_face_folder("marian", tmp_path / "source")
    store = tmp_path / "store"
    result = run(folder, store, "--name", "opus", "--dtype", "int8", "--dry-run")
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    assert "opus version 1: generate, family marian" in output
    assert f"would be exported as int8 to {store / 'opus' / '1'}; nothing was written" in output
    assert not store.exists()
    (folder / "model.safetensors").write_bytes(b"no weights")
    broken = run(folder, store, "--dry-run")
    assert broken.exit_code == 1
    assert "model.safetensors cannot be read" in broken.stderr


def test_report_has_what_a_table_needs(tmp_path: Path) -> None:
    """Graphs, parameters, sizes, format, differences, agreement and seconds."""
    folder = make_hugging_face_folder("bart", tmp_path / "source")
    output = run(folder, tmp_path / "store", "--name", "m").output
    for part in (
        "decode.onnx, encode.onnx, rank.onnx",
        "parameters",
        "number format",
        "checkpoint",
        "served model",
        "of its tolerance",
        "greedy agreement",
        "100.0%",
        "seconds",
        "transformers and our",
    ):
        assert part in output, part


def test_hub_ids_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no folder but an id comes from the hub, without pickles unless allowed."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def download(repository: str, **options: Any) -> str:
        calls.append((repository, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_source("org/model-1", "v2", is_pickle_allowed=False) == tmp_path
    assert find_source("model", None, is_pickle_allowed=True) == tmp_path
    (first, first_options), (second, second_options) = calls
    assert (first, second) == ("org/model-1", "model")
    assert (first_options["revision"], second_options["revision"]) == ("v2", None)
    assert "*.safetensors" in first_options["allow_patterns"]
    assert "*.bin" not in first_options["allow_patterns"]
    assert "*.bin" in second_options["allow_patterns"]


def test_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says both things that were tried."""

    def download(repository: str, **options: Any) -> str:
        raise LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    result = run("org/model", "store")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: org/model is no folder here, and it cannot be had from the hub: no connection\n"
    )


@pytest.mark.parametrize("source", ["../absent", "a/b/c", "", "spaces in it"])
def test_what_is_no_id_is_not_asked_for(source: str) -> None:
    """Paths that do not exist never become downloads."""
    with pytest.raises(CheckpointError, match="does not exist, and is no id of the hub"):
        find_source(source, None, is_pickle_allowed=False)


def test_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    """It would have no effect."""
    with pytest.raises(CheckpointError, match="--revision is for hub ids"):
        find_source(str(tmp_path), "v2", is_pickle_allowed=False)


def start_slow_export(folder: Path, store: Path) -> subprocess.Popen[str]:
    """An export in a process of its own that has begun to write, and then waits."""
    code = (
        "import signal, sys, time\n"
        # A shell that runs the tests in the background makes its children ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from seqserve_export import generation_filling\n"
        "def write(*arguments):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "generation_filling.write_graph = write\n"
        "from seqserve_export.__main__ import main\n"
        "main(sys.argv[1:])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(store), "--name", "m"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_export_leaves_nothing(
    tiny_checkpoint: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """What was begun is removed."""
    store = tmp_path / "store"
    process = start_slow_export(tiny_checkpoint, store)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode not in (0, None)
    assert not store.exists()


def test_killed_export_leaves_no_model_and_the_next_cleans_up(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """No server sees what it left; an export that still runs is left alone."""
    store = tmp_path / "store"
    running = start_slow_export(tiny_checkpoint, store)
    killed = start_slow_export(tiny_checkpoint, store)
    try:
        killed.kill()
        killed.communicate(timeout=30)
        assert len(list((store / "m").iterdir())) == 2
        assert not list(store.glob("*/*/seqserve.json"))
        export(tiny_checkpoint, store)
        assert sum(path.name.startswith(".export-") for path in (store / "m").iterdir()) == 1
    finally:
        running.kill()
        running.communicate(timeout=30)
    with (
        pytest.raises(ExportError, match="exists"),
        model_folder.building(store / "m" / "1", is_replacing=False),
    ):
        pass
    assert [path.name for path in (store / "m").iterdir()] == ["1"]


def test_code_of_an_encoder_decoder_folder_is_refused(tmp_path: Path) -> None:
    """A folder with a model class of its own is not taken for one of the library's."""
    folder = make_hugging_face_folder("bart", tmp_path / "source")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForSeq2SeqLM": "modeling.Model"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    result = run(folder, tmp_path / "store")
    assert result.exit_code == 1
    assert "needs code of its own" in result.stderr
