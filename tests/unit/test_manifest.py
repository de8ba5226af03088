"""The manifest: what was written is read back, and what was altered is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import make_generation_record
from seqserve.errors import ModelFolderError
from seqserve.manifest import (
    MANIFEST_FILE,
    Manifest,
    Provenance,
    QualityRecord,
    VerificationRecord,
    make_file_record,
    read_manifest,
    write_manifest,
)
from seqserve.task_record import (
    ClassificationRecord,
    EmbeddingRecord,
    MaskFillingRecord,
    PredictionRecord,
    RerankingRecord,
    SparseRecord,
    Task,
    TokenClassificationRecord,
)

FILES = {"encode.onnx": b"encode", "decode.onnx": b"decode", "tokenizer.json": b"{}"}


def make_manifest(folder: Path, **changes: Any) -> Manifest:
    """The manifest of a folder that holds the three files."""
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    values: dict[str, Any] = {
        "manifest_version": 1,
        "name": "tiny",
        "version": "1",
        "tasks": (Task.GENERATE,),
        "family": "bart",
        "dtype": "fp32",
        "source_tokenizer": "tokenizer.json",
        "source_vocabulary_size": 32,
        "max_source_length": 40,
        "generation": make_generation_record(),
        "is_batch_invariant": True,
        "verification": (
            VerificationRecord(check="logits", count=3, max_abs_difference=1e-6, tolerance=1e-4),
        ),
        "provenance": Provenance(source="tiny", exporter="test 1", libraries={"onnx": "1"}),
        "files": {name: make_file_record(folder / name) for name in FILES},
    }
    return Manifest(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder that can be served."""
    write_manifest(make_manifest(tmp_path), tmp_path)
    return tmp_path


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    """Changes the JSON of the manifest in place."""
    path = folder / MANIFEST_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def refusal(folder: Path) -> str:
    """The message with which a folder is refused."""
    with pytest.raises(ModelFolderError) as caught:
        read_manifest(folder)
    return str(caught.value)


def test_manifest_survives_the_round_trip(folder: Path) -> None:
    """What is read is what was written."""
    assert read_manifest(folder) == make_manifest(folder)


def test_quality_survives_the_round_trip(tmp_path: Path) -> None:
    """What a format costs is optional: older folders do not say it."""
    quality = QualityRecord(
        measure="lowest cosine of embeddings",
        texts="40 built-in texts",
        count=40,
        value=0.993,
        threshold=0.99,
        mean=0.998,
        num_near_ties=0,
        num_layers=36,
        num_fp32_layers=4,
    )
    manifest = make_manifest(tmp_path, quality=quality)
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
    edit(tmp_path, lambda content: content.pop("quality"))
    assert read_manifest(tmp_path).quality is None


def test_embedding_manifest_survives_the_round_trip(tmp_path: Path) -> None:
    """A model that embeds has its own section and needs no decode graph."""
    record = EmbeddingRecord(
        embed_graph="encode.onnx", embedding_size=8, pooling="mean", normalize=True
    )
    manifest = make_manifest(tmp_path, tasks=(Task.EMBED,), generation=None, embedding=record)
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert manifest.file_names() == ["tokenizer.json", "encode.onnx"]


@pytest.mark.parametrize(
    ("pooling", "sparse"), [("splade_max", None), ("mean", SparseRecord(activation="relu"))]
)
def test_sparse_poolings_need_their_section(pooling: str, sparse: SparseRecord | None) -> None:
    """And the section needs such a pooling."""
    with pytest.raises(ValueError, match="splade_max or splade_sum and section sparse must come"):
        EmbeddingRecord(
            embed_graph="embed.onnx",
            embedding_size=8,
            pooling=pooling,
            normalize=False,
            sparse=sparse,
        )


@pytest.mark.parametrize(
    ("task", "section", "record"),
    [
        (
            Task.CLASSIFY,
            "classification",
            ClassificationRecord(
                graph="encode.onnx", labels=("bad", "good"), problem_type="single_label"
            ),
        ),
        (
            Task.CLASSIFY_TOKENS,
            "token_classification",
            TokenClassificationRecord(graph="encode.onnx", labels=("O", "B-PER")),
        ),
        (
            Task.RERANK,
            "reranking",
            RerankingRecord(graph="encode.onnx", has_token_types=True, activation="sigmoid"),
        ),
        (
            Task.FILL_MASK,
            "mask_filling",
            MaskFillingRecord(graph="encode.onnx", mask_token="[MASK]", mask_token_id=4),
        ),
    ],
)
def test_manifest_of_a_head_survives_the_round_trip(
    task: Task, section: str, record: PredictionRecord, tmp_path: Path
) -> None:
    """Each task of a head has a section of its own, and one graph."""
    changes: dict[str, Any] = {section: record}
    manifest = make_manifest(tmp_path, tasks=(task,), generation=None, **changes)
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert manifest.prediction == record
    assert manifest.file_names() == ["tokenizer.json", "encode.onnx"]
    edit(tmp_path, lambda content: content.pop(section))
    message = f"task {task} and section {section} must come together"
    assert message in refusal(tmp_path)


def test_mask_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    """The mask token is one that the model embeds."""
    record = MaskFillingRecord(graph="encode.onnx", mask_token="[MASK]", mask_token_id=31)
    changes: dict[str, Any] = {"mask_filling": record}
    manifest = make_manifest(tmp_path, tasks=(Task.FILL_MASK,), generation=None, **changes)
    write_manifest(manifest, tmp_path)
    edit(tmp_path, lambda content: content["mask_filling"].update(mask_token_id=32))
    assert "mask_token_id is not in the source vocabulary" in refusal(tmp_path)


def test_file_record_measures_the_file(tmp_path: Path) -> None:
    """The record has the size in bytes and the SHA-256 in hexadecimal."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    record = make_file_record(path)
    assert record.size_bytes == 3
    assert record.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("name", sorted(FILES))
def test_altered_file_is_refused(name: str, folder: Path) -> None:
    """A file of the right size with other bytes is not the file of the manifest."""
    content = FILES[name]
    (folder / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert refusal(folder).startswith(f"{folder / name} is not the file of the manifest: ")


def test_file_of_another_size_is_refused(folder: Path) -> None:
    """The message has both sizes."""
    (folder / "decode.onnx").write_bytes(b"decoded")
    message = refusal(folder)
    assert message.startswith(f"{folder / 'decode.onnx'} is not the file of the manifest: 7 bytes")
    assert "expected 6 bytes" in message


def test_wrong_size_in_the_manifest_is_refused(folder: Path) -> None:
    """A listed size that is not the file's is refused, though the hash is right."""
    edit(folder, lambda content: content["files"]["tokenizer.json"].update(size_bytes=3))
    assert "tokenizer.json is not the file of the manifest: 2 bytes" in refusal(folder)


def test_missing_file_is_refused(folder: Path) -> None:
    """A listed file that is not there is named."""
    (folder / "encode.onnx").unlink()
    path = folder / "encode.onnx"
    assert refusal(folder) == f"{path} is listed in the manifest but does not exist"


def test_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    """A folder of a listed file's name is not that file."""
    (folder / "encode.onnx").unlink()
    (folder / "encode.onnx").mkdir()
    assert refusal(folder).endswith("encode.onnx is listed in the manifest but does not exist")


def test_missing_manifest_is_refused(tmp_path: Path) -> None:
    """Without a manifest the message names the file that is looked for."""
    path = tmp_path / MANIFEST_FILE
    assert refusal(tmp_path) == f"{path} cannot be read: No such file or directory"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"name": "tiny"'])
def test_malformed_json_is_refused(content: bytes, folder: Path) -> None:
    """What is no JSON object is refused as the manifest's fault."""
    (folder / MANIFEST_FILE).write_bytes(content)
    assert refusal(folder).startswith(f"{folder / MANIFEST_FILE} is malformed: manifest: ")


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("", "colour", "blue", "colour: Extra inputs are not permitted"),
        ("generation", "colour", "blue", "generation.colour: Extra inputs are not permitted"),
        ("", "manifest_version", 2, "manifest_version: Input should be 1"),
        ("", "name", "../tiny", "name: String should match pattern"),
        ("", "version", "0", "version: String should match pattern"),
        ("", "version", 1, "version: Input should be a valid string"),
        ("", "dtype", "fp64", "dtype: Input should be "),
        ("", "tasks", [], "tasks: Tuple should have at least 1 item"),
        ("", "tasks", ["sing"], "tasks.0: Input should be "),
        ("", "max_source_length", 0, "max_source_length: Input should be greater than"),
        ("", "max_source_length", "40", "max_source_length: Input should be a valid integer"),
        ("", "source_tokenizer", "../x", "source_tokenizer: String should match pattern"),
        ("", "source_tokenizer", "/x", "source_tokenizer: String should match pattern"),
        ("", "source_tokenizer", "a/b", "source_tokenizer: String should match pattern"),
        ("", "source_tokenizer", "..", "source_tokenizer: String should match pattern"),
        ("", "source_tokenizer", "x\n", "source_tokenizer: String should match pattern"),
        ("", "source_tokenizer", "other.json", "other.json is used but not listed in files"),
        ("generation", "encode_graph", "../x", "generation.encode_graph: String should match"),
        ("generation", "eos_token_id", 32, "eos_token_id is not in the target vocabulary"),
        ("generation", "pad_token_id", 99, "pad_token_id is not in the target vocabulary"),
        ("generation", "decoder_start_token_id", -1, "generation.decoder_start_token_id: Input"),
        ("generation", "max_new_tokens", 51, "max_new_tokens exceeds max_target_length"),
        ("generation", "move_rows_graph", "a.onnx", "best_tokens_graph must come together"),
        ("generation", "num_beams", 0, "generation.num_beams: Input should be greater than"),
        ("generation", "repetition_penalty", 0.001, "generation.repetition_penalty: Input should"),
        ("generation", "repetition_penalty", 1e12, "generation.repetition_penalty: Input should"),
        ("generation", "length_penalty", 5.5, "generation.length_penalty: Input should be less"),
        ("generation", "length_penalty", -6.0, "generation.length_penalty: Input should be great"),
        ("generation", "length_penalty", math.nan, "generation.length_penalty: Input should be"),
        ("generation", "max_target_length", 2**16 + 1, "generation.max_target_length: Input"),
        ("generation", "temperature", 0.0, "generation.temperature: Input should be greater than"),
        ("generation", "top_p", 1.5, "generation.top_p: Input should be less than or equal to 1"),
        ("generation", "top_k", -1, "generation.top_k: Input should be greater than or equal to 0"),
        ("generation", "suppressed_sequences", [[3]], "suppressed_sequences.0: Tuple should have"),
        ("generation", "suppressed_sequences", [[3, 32]], "suppressed token 32 is not in the"),
    ],
)
def test_wrong_fields_are_refused(
    section: str, name: str, value: object, message: str, folder: Path
) -> None:
    """Every wrong field is refused with its path in the message."""
    edit(folder, lambda content: (content[section] if section else content).update({name: value}))
    assert refusal(folder).startswith(f"{folder / MANIFEST_FILE} is malformed: ")
    assert message in refusal(folder)


def test_beams_that_sample_are_refused(folder: Path) -> None:
    """No search does both."""
    edit(folder, lambda content: content["generation"].update(do_sample=True, num_beams=2))
    assert "do_sample and several beams exclude each other" in refusal(folder)


def test_listed_path_outside_the_folder_is_refused(folder: Path) -> None:
    """The list of files cannot make the server read files elsewhere."""
    edit(folder, lambda content: content["files"].update({"../x": content["files"]["decode.onnx"]}))
    assert "files.../x.[key]: String should match pattern" in refusal(folder)


@pytest.mark.parametrize("name", ["family", "files", "provenance", "is_batch_invariant"])
def test_missing_field_is_refused(name: str, folder: Path) -> None:
    """A field without a default must be there."""
    edit(folder, lambda content: content.pop(name))
    assert f"{name}: Field required" in refusal(folder)


def test_task_without_its_section_is_refused(folder: Path) -> None:
    """Tasks and sections come together."""
    edit(folder, lambda content: content.pop("generation"))
    assert "task generate and section generation must come together" in refusal(folder)
    write_manifest(make_manifest(folder), folder)
    edit(folder, lambda content: content["tasks"].append("embed"))
    assert "task embed and section embedding must come together" in refusal(folder)


def test_graphs_for_devices_are_among_the_files(tmp_path: Path) -> None:
    """A model that names them cannot do without them."""
    record = make_generation_record().model_copy(
        update={"move_rows_graph": "move_rows.onnx", "best_tokens_graph": "best_tokens.onnx"}
    )
    with pytest.raises(ValueError, match=r"move_rows\.onnx is used but not listed in files"):
        make_manifest(tmp_path, generation=record)
