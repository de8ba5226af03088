"""The manifest: what a model folder holds and how to use it.

A served model is a folder ``<store>/<name>/<version>/`` with a manifest, ``seqserve.json``, that
export writes and the server reads. The type is defined here, once; export imports it.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

import pydantic

from seqserve.errors import ModelFolderError
from seqserve.explanation_record import ExplanationRecord
from seqserve.task_record import (
    ClassificationRecord,
    Count,
    EmbeddingRecord,
    FileName,
    GenerationRecord,
    MaskFillingRecord,
    PredictionRecord,
    Record,
    RerankingRecord,
    Task,
    TokenClassificationRecord,
)

MANIFEST_FILE = "seqserve.json"

_Name = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
_Version = Annotated[str, pydantic.Field(pattern=r"^[1-9][0-9]{0,8}$")]


class FileRecord(Record):
    """One file of the folder."""

    size_bytes: Annotated[int, pydantic.Field(ge=0)]
    sha256: Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]


class VerificationRecord(Record):
    """One comparison export made before it wrote the folder."""

    check: str
    """What was compared with what, on what."""
    count: Count
    """How many cases."""
    max_abs_difference: Annotated[float, pydantic.Field(ge=0)]
    tolerance: Annotated[float, pydantic.Field(ge=0)]


LayerForm = Literal["static", "smoothed", "rowwise", "fp32"]
"""What scales the inputs of a layer: one number for all, one with a factor for each input, the
largest of each row, or nothing."""


class LayerRecord(Record):
    """How a linear layer of an int8 model is computed, and what that costs."""

    name: str
    """In the torch model it was exported from."""
    form: LayerForm
    relative_error: Annotated[float, pydantic.Field(ge=0)]
    """How far its outputs on samples are off those in fp32, as a share of their norm; of a layer
    that stays in fp32, how far int8 would be off."""


class QualityRecord(Record):
    """How far the answers of an encoder in a smaller format agree with the original's in fp32."""

    measure: str
    """What was measured on the answers of the graph."""
    texts: str
    """What was asked: how many texts, and where they are from; none the format was chosen on."""
    count: Annotated[int, pydantic.Field(ge=0)]
    """Cases: texts, tokens, masks, or pairs of scores."""
    value: Annotated[float, pydantic.Field(ge=-1, le=1)]
    threshold: Annotated[float, pydantic.Field(ge=0, le=1)]
    """Least value that was good enough."""
    mean: Annotated[float, pydantic.Field(ge=-1, le=1)] | None = None
    """Of cosines, the lowest of which is the value; None for other measures."""
    num_near_ties: Annotated[int, pydantic.Field(ge=0)]
    """Cases with another answer that the original holds for as good as its own."""
    num_layers: Annotated[int, pydantic.Field(ge=0)]
    """Linear layers of the model."""
    num_fp32_layers: Annotated[int, pydantic.Field(ge=0)]
    """Linear layers that are in fp32 for the sake of the value, besides those that are for their
    own errors."""


class Provenance(Record):
    """Where a model came from."""

    source: str
    """The checkpoint, as given to export; a folder's name rather than its path."""
    exporter: str
    """Name and version of what wrote the folder."""
    libraries: dict[str, str]
    """Versions that shaped the graphs: torch, onnx, onnxruntime."""


_SECTIONS = {
    Task.GENERATE: "generation",
    Task.EMBED: "embedding",
    Task.CLASSIFY: "classification",
    Task.CLASSIFY_TOKENS: "token_classification",
    Task.RERANK: "reranking",
    Task.FILL_MASK: "mask_filling",
}
"""The section of the manifest that each task needs."""


class Manifest(Record):
    """All of ``seqserve.json``."""

    manifest_version: Literal[1]
    name: _Name
    version: _Version
    tasks: Annotated[tuple[Task, ...], pydantic.Field(min_length=1, strict=False)]
    family: str
    dtype: Literal["fp32", "int8", "fp16"]
    source_tokenizer: FileName
    source_vocabulary_size: Count
    max_source_length: Count
    """Longest source in tokens, special tokens included."""
    generation: GenerationRecord | None = None
    embedding: EmbeddingRecord | None = None
    classification: ClassificationRecord | None = None
    token_classification: TokenClassificationRecord | None = None
    reranking: RerankingRecord | None = None
    mask_filling: MaskFillingRecord | None = None
    explanation: ExplanationRecord | None = None
    """What tells of its attention; None where export was asked to leave that out, and in older
    folders."""
    is_batch_invariant: bool
    """Whether export found results bit-identical alone and in mixed batches on its machine."""
    verification: Annotated[tuple[VerificationRecord, ...], pydantic.Field(strict=False)]
    greedy_agreement: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    """Share of greedy decisions that are those of the original in fp32; None for encoders."""
    layers: Annotated[tuple[LayerRecord, ...], pydantic.Field(strict=False)] | None = None
    """Linear layers of an int8 model; None in other formats."""
    quality: QualityRecord | None = None
    """What the format costs; None in fp32, of models that generate, and in older folders."""
    provenance: Provenance
    files: dict[FileName, FileRecord]
    """Every file of the folder but the manifest itself."""

    @pydantic.model_validator(mode="after")
    def _check_parts(self) -> Self:
        for task, section in _SECTIONS.items():
            if (task in self.tasks) != (getattr(self, section) is not None):
                raise ValueError(f"task {task} and section {section} must come together")
        mask_filling = self.mask_filling
        if mask_filling and mask_filling.mask_token_id >= self.source_vocabulary_size:
            raise ValueError("mask_token_id is not in the source vocabulary")
        explanation = self.explanation
        if explanation and bool(explanation.num_decoder_layers) != (self.generation is not None):
            raise ValueError("decoder layers and section generation must come together")
        if len(self.tasks) > 1:
            raise ValueError("tasks of different graphs cannot be combined in one model")
        for name in self.file_names():
            if name not in self.files:
                raise ValueError(f"{name} is used but not listed in files")
        return self

    def file_names(self) -> list[str]:
        """Graphs and tokenizers the model cannot do without."""
        names = [self.source_tokenizer]
        if self.generation is not None:
            names += [
                self.generation.encode_graph,
                self.generation.decode_graph,
                self.generation.target_tokenizer,
            ]
            optional_graphs = (
                self.generation.rank_graph,
                self.generation.move_rows_graph,
                self.generation.best_tokens_graph,
            )
            names += [name for name in optional_graphs if name is not None]
        if self.embedding is not None:
            names.append(self.embedding.embed_graph)
        if self.prediction is not None:
            names.append(self.prediction.graph)
        if self.explanation is not None:
            names.append(self.explanation.graph)
        return names

    @property
    def prediction(self) -> PredictionRecord | None:
        """The section of a model with a head: all but generation and embedding."""
        return (
            self.classification or self.token_classification or self.reranking or self.mask_filling
        )


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes ``seqserve.json``."""
    text = manifest.model_dump_json(indent=2, exclude_none=True)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest, and that every file is the one it lists.

    Raises:
        ModelFolderError: The manifest is absent or malformed, a file is absent, or a file's size or
            SHA-256 differs.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}") from error
    except pydantic.ValidationError as error:
        raise ModelFolderError(f"{path} is malformed: {_describe(error)}") from error
    for name, record in manifest.files.items():
        check_file(folder / name, record)
    return manifest


def make_file_record(path: Path) -> FileRecord:
    """Measures a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(size_bytes=path.stat().st_size, sha256=digest)


def check_file(path: Path, record: FileRecord) -> None:
    """Checks that a file is the one that the manifest lists.

    Raises:
        ModelFolderError: It is absent, or its size or SHA-256 differs.
    """
    if not path.is_file():
        raise ModelFolderError(f"{path} is listed in the manifest but does not exist")
    found = make_file_record(path)
    if found != record:
        raise ModelFolderError(
            f"{path} is not the file of the manifest: {found.size_bytes} bytes with SHA-256 "
            f"{found.sha256[:12]}..., expected {record.size_bytes} bytes with "
            f"{record.sha256[:12]}...; export the model again"
        )


def _describe(error: pydantic.ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )
