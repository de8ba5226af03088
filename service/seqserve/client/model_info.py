"""What there is to know of a served model, and of what it does when a request does not say."""

import dataclasses

from seqserve.client.head_settings import (
    ClassificationSettings,
    MaskFillingSettings,
    RerankingSettings,
    TokenClassificationSettings,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """What a model that generates does when a request does not say, and how far it goes."""

    max_new_tokens: int
    num_beams: int
    length_penalty: float
    early_stopping: bool
    min_new_tokens: int
    no_repeat_ngram_size: int
    repetition_penalty: float
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None
    suppressed_token_ids: tuple[int, ...]
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    suppressed_sequences: tuple[tuple[int, ...], ...]
    max_target_length: int
    """Largest ``max_new_tokens``."""
    max_num_beams: int
    """Largest ``num_beams``."""
    target_vocabulary_size: int
    source_languages: tuple[str, ...]
    """Empty when the model is not told."""
    target_languages: tuple[str, ...]
    """Empty when the model is not told."""
    default_source_language: str
    """Empty when inputs must name theirs."""
    default_target_language: str
    """Empty when inputs must name theirs."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SparseSettings:
    """What a model returns whose embeddings are sparse."""

    activation: str
    """"relu" or "log1p_relu"."""
    max_active_dims: int | None = None
    """How many weights an embedding has at most when a request does not say; None for no limit."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSettings:
    """What a model that embeds returns."""

    embedding_size: int
    pooling: str
    normalize: bool
    """Whether embeddings have length 1 when a request does not say."""
    prompts: dict[str, str] = dataclasses.field(default_factory=dict)
    """Texts that can be put before inputs, by name."""
    default_prompt_name: str = ""
    """The prompt of requests that name none; empty for none."""
    token_embedding_size: int = 0
    """0 for models that return no token embeddings."""
    sparse: SparseSettings | None = None
    """None for models whose embeddings are dense."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSettings:
    """What can be shown of a model's attention."""

    encoder_layer_count: int
    decoder_layer_count: int
    """In which the target looks at the source; 0 for encoder-only models."""
    decoder_self_layer_count: int
    """In which it looks at itself; 0 for recurrent decoders, too."""
    head_count: int
    """Of each layer."""
    alignment_heads: tuple[tuple[int, int], ...]
    """Layer and head of those whose mean is the alignment; empty for models that cannot align."""
    alignment_agreement: float
    """How good alignments were when the model was exported, from 0 to 1."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A served model."""

    name: str
    version: str
    tasks: tuple[str, ...]
    """"generate", "embed", "classify", "classify_tokens", "rerank", "fill_mask"."""
    family: str
    dtype: str
    source: str
    max_source_length: int
    source_vocabulary_size: int
    max_inputs_per_request: int
    is_batch_invariant: bool
    """Whether results are the same bit for bit, whatever else is in the batch."""
    generation: GenerationSettings | None
    """None for models that do not generate."""
    embedding: EmbeddingSettings | None
    """None for models that do not embed."""
    classification: ClassificationSettings | None = None
    """None for models that do not classify texts, and so are those below for others."""
    token_classification: TokenClassificationSettings | None = None
    reranking: RerankingSettings | None = None
    mask_filling: MaskFillingSettings | None = None
    attention: AttentionSettings | None = None
    labels: tuple[str, ...] = ()
    """What else the version may be called in requests, "stable", say."""
