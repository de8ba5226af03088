"""What every kind of model leaves in its folder, for the manifest and the report."""

import dataclasses
from pathlib import Path

from seqserve.explanation_record import ExplanationRecord
from seqserve.manifest import LayerRecord, QualityRecord
from seqserve.task_record import (
    ClassificationRecord,
    EmbeddingRecord,
    GenerationRecord,
    MaskFillingRecord,
    RerankingRecord,
    TokenClassificationRecord,
)
from seqserve_export.phase import OnPhase
from seqserve_export.precision import Dtype
from seqserve_export.verification import Verification

SOURCE_TOKENIZER_FILE = "tokenizer.json"
TARGET_TOKENIZER_FILE = "target_tokenizer.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """Where and how to fill a folder."""

    folder: Path
    """Exists and is empty."""
    dtype: Dtype
    calibration_texts: tuple[str, ...]
    """Texts to choose number ranges on; see :mod:`seqserve_export.calibration_text` if empty."""
    on_phase: OnPhase
    is_explained: bool = False
    """Whether there is a graph that tells of the attention."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filling:
    """What was written and found."""

    source_vocabulary_size: int
    max_source_length: int
    verification: Verification
    fp32_layers: tuple[str, ...] = ()
    """Linear layers that stay in fp32 though another format was asked for."""
    layers: tuple[LayerRecord, ...] | None = None
    """Linear layers of an int8 model; None in other formats."""
    quality: QualityRecord | None = None
    """What the format costs an encoder; None in fp32."""
    calibrated_on: str | None = None
    """What the format was chosen on; None in fp32."""
    generation: GenerationRecord | None = None
    embedding: EmbeddingRecord | None = None
    classification: ClassificationRecord | None = None
    token_classification: TokenClassificationRecord | None = None
    reranking: RerankingRecord | None = None
    mask_filling: MaskFillingRecord | None = None
    explanation: ExplanationRecord | None = None
    """None where it was not asked for."""
