"""What calls return: plain records and arrays, no protocol messages."""

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seqserve.client.head_settings import (
    ClassificationSettings,
    MaskFillingSettings,
    RerankingSettings,
    TokenClassificationSettings,
)

FinishReason = Literal["eos", "length", "stop_sequence", "time"]
"""Why a hypothesis ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """Where the server's time for one input went, in seconds."""

    queue_seconds: float
    encode_seconds: float
    decode_seconds: float
    """0 for embeddings."""


@dataclasses.dataclass(frozen=True, slots=True)
class TokenLogProbability:
    """A token and how likely the model finds it."""

    token_id: int
    piece: str
    """The vocabulary entry."""
    log_probability: float


@dataclasses.dataclass(frozen=True, slots=True)
class Hypothesis:
    """One generated target."""

    text: str
    token_ids: tuple[int, ...]
    """All that were produced, with the target prefix, the end token and a stop sequence."""
    score: float | None
    """None when one beam was not asked for it."""
    token_log_probabilities: tuple[float, ...]
    """Of the tokens behind the target prefix; empty when not asked for."""
    finish_reason: FinishReason
    prefix_token_count: int = 0
    """How many of ``token_ids`` are the target prefix."""
    top_log_probabilities: tuple[tuple[TokenLogProbability, ...], ...] = ()
    """The most probable tokens in place of each behind the prefix; empty when not asked for."""
    stop_sequence: str = ""
    """What ended it, if a stop sequence did."""


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """What was generated from one input."""

    hypotheses: tuple[Hypothesis, ...]
    """Best first; drawn ones in the order of drawing."""
    source_token_count: int
    truncated_token_count: int
    """Source tokens that were cut; 0 unless ``truncate`` was set."""
    timing: Timing
    seed: int | None
    """With which hypotheses were drawn; None if they were not."""

    @property
    def text(self) -> str:
        """The text of the first hypothesis."""
        return self.hypotheses[0].text


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """The next tokens of a streamed target."""

    text: str
    """To append; may be empty."""
    token_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ScoredToken:
    """One token of a given target."""

    token_id: int
    text: str
    """The vocabulary entry."""
    log_probability: float


@dataclasses.dataclass(frozen=True, slots=True)
class TargetScore:
    """How probable one given target is."""

    tokens: tuple[ScoredToken, ...]
    """With those that the server added to a text."""
    total_log_probability: float
    mean_log_probability: float
    """The total over the number of tokens."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scoring:
    """The scores of the targets of one input."""

    scores: tuple[TargetScore, ...]
    """In the order of the targets."""
    source_token_count: int
    truncated_token_count: int
    """Source tokens that were cut; 0 unless ``truncate`` was set."""
    timing: Timing


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """One token of a text."""

    token_id: int
    text: str
    start_offset: int
    """First character, in code points."""
    end_offset: int
    is_special: bool


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """A weight for each entry of the vocabulary: those above 0."""

    indices: NDArray[np.int32]
    """Ids of tokens, ascending, [N]."""
    values: NDArray[np.float32]
    """[N]"""
    tokens: tuple[str, ...] = ()
    """Entries of the vocabulary, N; empty when not asked for."""

    def to_dense(self, size: int) -> NDArray[np.float32]:
        """The vector with its zeros, [size]; ``embedding_size`` has room for all."""
        dense = np.zeros(size, np.float32)
        dense[self.indices] = self.values
        return dense


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EmbeddingWindow:
    """The embedding of a part of a text."""

    vector: NDArray[np.float32]
    """[M]; empty of sparse embeddings."""
    start_offset: int
    """First character, in code points."""
    end_offset: int
    token_count: int
    sparse: SparseVector | None = None
    """None of dense embeddings."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TokenEmbeddings:
    """The states of the tokens of one text."""

    tokens: tuple[Token, ...]
    vectors: NDArray[np.float32]
    """[S, M]"""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The embeddings of the texts of one call, in their order."""

    vectors: NDArray[np.float32]
    """[N, M]; [N, 0] of sparse embeddings."""
    token_counts: tuple[int, ...]
    truncated_token_counts: tuple[int, ...]
    timings: tuple[Timing, ...]
    windows: tuple[tuple[EmbeddingWindow, ...], ...] = ()
    """Those of each text; empty when not asked for."""
    token_embeddings: tuple[TokenEmbeddings, ...] = ()
    """Those of each text; empty when not asked for."""
    sparse: tuple[SparseVector, ...] = ()
    """The vector of each text, N; empty of dense embeddings."""


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
    labels: tuple[str, ...] = ()
    """What else the version may be called in requests, "stable", say."""
