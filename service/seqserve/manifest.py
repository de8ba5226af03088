"""The manifest: what a model folder holds and how to use it.

A served model is a folder ``<store>/<name>/<version>/`` with a manifest, ``seqserve.json``, that
export writes and the server reads. The type is defined here, once; export imports it.
"""

import enum
import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

import pydantic

from seqserve.errors import ModelFolderError

MANIFEST_FILE = "seqserve.json"

_Count = Annotated[int, pydantic.Field(ge=1)]
_TokenId = Annotated[int, pydantic.Field(ge=0)]
_Name = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
_Version = Annotated[str, pydantic.Field(pattern=r"^[1-9][0-9]{0,8}$")]
# A bare file name: a manifest must not reach outside its folder.
_FileName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Task(enum.StrEnum):
    """What a model can do."""

    GENERATE = "generate"
    EMBED = "embed"
    CLASSIFY = "classify"
    CLASSIFY_TOKENS = "classify_tokens"
    RERANK = "rerank"
    FILL_MASK = "fill_mask"


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class FileRecord(_Record):
    """One file of the folder."""

    size_bytes: Annotated[int, pydantic.Field(ge=0)]
    sha256: Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]


SOURCE_LANGUAGE: Literal["source_language"] = "source_language"
TARGET_LANGUAGE: Literal["target_language"] = "target_language"
_SourcePart = _TokenId | Literal["source_language", "target_language"]


class TargetMode(enum.StrEnum):
    """Where a multilingual model reads which language to write."""

    FORCED_BOS = "forced_bos"
    """The first generated token is the language's (M2M100, NLLB, mBART-50)."""
    DECODER_START = "decoder_start"
    """The decoder starts with the language's token (mBART)."""
    SOURCE = "source"
    """The source holds the language's token (multilingual Marian)."""


class LanguageRecord(_Record):
    """The languages of a multilingual model, and how they are told to it."""

    source: dict[str, _TokenId]
    """Token of each language that can be read; empty when the model is not told."""
    target: dict[str, _TokenId]
    """Token of each language that can be written; empty when the model is not told."""
    source_prefix: Annotated[tuple[_SourcePart, ...], pydantic.Field(strict=False)]
    """Tokens before those of the text, languages standing for theirs."""
    source_suffix: Annotated[tuple[_SourcePart, ...], pydantic.Field(strict=False)]
    """Tokens after those of the text."""
    target_mode: Annotated[TargetMode, pydantic.Field(strict=False)]
    default_source: str | None = None
    """Language of inputs that name none; None means that they must."""
    default_target: str | None = None

    @pydantic.model_validator(mode="after")
    def _check_parts(self) -> Self:
        parts = (*self.source_prefix, *self.source_suffix)
        if (SOURCE_LANGUAGE in parts) != bool(self.source):
            raise ValueError("source languages and their place in the source must come together")
        is_read = TARGET_LANGUAGE in parts
        if is_read != (self.target_mode is TargetMode.SOURCE):
            raise ValueError('target_mode "source" and its place in the source must come together')
        for default, codes in (
            (self.default_source, self.source),
            (self.default_target, self.target),
        ):
            if default is not None and default not in codes:
                raise ValueError(f"default language {default!r} is not among the languages")
        return self


class GenerationRecord(_Record):
    """How to decode with an encoder-decoder model."""

    encode_graph: _FileName
    decode_graph: _FileName
    target_tokenizer: _FileName
    target_vocabulary_size: _Count
    max_target_length: _Count
    """Most target tokens, the start token not counted."""
    num_layers: _Count
    """Decoder layers, L."""
    num_heads: _Count
    head_size: _Count
    decoder_start_token_id: _TokenId
    eos_token_id: _TokenId
    pad_token_id: _TokenId
    max_new_tokens: _Count
    """Default; requests may set their own up to ``max_target_length``."""
    num_beams: _Count
    length_penalty: Annotated[float, pydantic.Field(allow_inf_nan=False)]
    early_stopping: bool = False
    min_new_tokens: Annotated[int, pydantic.Field(ge=0)] = 0
    no_repeat_ngram_size: Annotated[int, pydantic.Field(ge=0)] = 0
    repetition_penalty: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] = 1.0
    forced_bos_token_id: _TokenId | None = None
    forced_eos_token_id: _TokenId | None = None
    suppressed_tokens: Annotated[tuple[_TokenId, ...], pydantic.Field(strict=False)] = ()
    """Never generated, unless forced."""
    languages: LanguageRecord | None = None
    """None for models that are not told languages."""

    @pydantic.model_validator(mode="after")
    def _check_ranges(self) -> Self:
        if self.max_new_tokens > self.max_target_length:
            raise ValueError("max_new_tokens exceeds max_target_length")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens exceeds max_new_tokens")
        token_ids = {
            name: getattr(self, name)
            for name in (
                "decoder_start_token_id",
                "eos_token_id",
                "pad_token_id",
                "forced_bos_token_id",
                "forced_eos_token_id",
            )
        }
        token_ids |= {
            f"suppressed token {token_id}": token_id for token_id in self.suppressed_tokens
        }
        if self.languages is not None:
            token_ids |= {f"language {code}": one for code, one in self.languages.target.items()}
        for name, token_id in token_ids.items():
            if token_id is not None and token_id >= self.target_vocabulary_size:
                raise ValueError(f"{name} is not in the target vocabulary")
        return self


class EmbeddingRecord(_Record):
    """How to embed with an encoder-only model."""

    embed_graph: _FileName
    embedding_size: _Count
    pooling: Annotated[str, pydantic.Field(pattern=r"^[a-z_]+(\+[a-z_]+)*$")]
    """How states become one vector: "mean", "cls", ...; several modes are joined by "+"."""
    normalize: bool
    """Whether the model is meant to be used with embeddings of length 1."""


class _PredictionRecord(_Record):
    graph: _FileName
    has_token_types: bool = False
    """Whether the graph tells the texts of a pair apart by the types of their tokens."""


_Labels = Annotated[tuple[str, ...], pydantic.Field(min_length=1, strict=False)]


class ClassificationRecord(_PredictionRecord):
    """How to classify texts, or pairs of texts."""

    labels: _Labels
    """In the order of the logits."""
    problem_type: Literal["single_label", "multi_label", "regression"]
    """Whether one label holds (softmax), each for itself (sigmoid), or logits are values."""


class TokenClassificationRecord(_PredictionRecord):
    """How to label the tokens of texts."""

    labels: _Labels
    """In the order of the logits."""


class RerankingRecord(_PredictionRecord):
    """How to score pairs of a query and a text."""

    activation: Literal["sigmoid", "identity"]
    """What makes a score of the one logit when a request does not say."""


class MaskFillingRecord(_PredictionRecord):
    """How to fill masked tokens. The graph returns logits for the masks only, row after row."""

    mask_token_id: _TokenId
    mask_token: str
    """As it stands in texts."""


PredictionRecord = (
    ClassificationRecord | TokenClassificationRecord | RerankingRecord | MaskFillingRecord
)


class VerificationRecord(_Record):
    """One comparison export made before it wrote the folder."""

    check: str
    """What was compared with what, on what."""
    count: _Count
    """How many cases."""
    max_abs_difference: Annotated[float, pydantic.Field(ge=0)]
    tolerance: Annotated[float, pydantic.Field(ge=0)]


class Provenance(_Record):
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


class Manifest(_Record):
    """All of ``seqserve.json``."""

    manifest_version: Literal[1]
    name: _Name
    version: _Version
    tasks: Annotated[tuple[Task, ...], pydantic.Field(min_length=1, strict=False)]
    family: str
    dtype: Literal["fp32", "int8", "fp16"]
    source_tokenizer: _FileName
    source_vocabulary_size: _Count
    max_source_length: _Count
    """Longest source in tokens, special tokens included."""
    generation: GenerationRecord | None = None
    embedding: EmbeddingRecord | None = None
    classification: ClassificationRecord | None = None
    token_classification: TokenClassificationRecord | None = None
    reranking: RerankingRecord | None = None
    mask_filling: MaskFillingRecord | None = None
    is_batch_invariant: bool
    """Whether export found results bit-identical alone and in mixed batches on its machine."""
    verification: Annotated[tuple[VerificationRecord, ...], pydantic.Field(strict=False)]
    greedy_agreement: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    """Share of greedy decisions that are those of the original in fp32; None for encoders."""
    provenance: Provenance
    files: dict[_FileName, FileRecord]
    """Every file of the folder but the manifest itself."""

    @pydantic.model_validator(mode="after")
    def _check_parts(self) -> Self:
        for task, section in _SECTIONS.items():
            if (task in self.tasks) != (getattr(self, section) is not None):
                raise ValueError(f"task {task} and section {section} must come together")
        mask_filling = self.mask_filling
        if mask_filling and mask_filling.mask_token_id >= self.source_vocabulary_size:
            raise ValueError("mask_token_id is not in the source vocabulary")
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
        if self.embedding is not None:
            names.append(self.embedding.embed_graph)
        if self.prediction is not None:
            names.append(self.prediction.graph)
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
        _check_file(folder / name, record)
    return manifest


def make_file_record(path: Path) -> FileRecord:
    """Measures a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(size_bytes=path.stat().st_size, sha256=digest)


def _check_file(path: Path, record: FileRecord) -> None:
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
