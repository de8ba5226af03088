"""How to run a model, task by task: the sections of a manifest.

Each is complete: graphs by the names of their files, and everything a request may leave unsaid.
"""

import enum
import itertools
from typing import Annotated, Literal, Self

import pydantic

from seqserve.decoding_limit import (
    MAX_LENGTH_PENALTY,
    MAX_REPETITION_PENALTY,
    MAX_TARGET_LENGTH,
    MIN_LENGTH_PENALTY,
    MIN_REPETITION_PENALTY,
)

Count = Annotated[int, pydantic.Field(ge=1)]
TokenId = Annotated[int, pydantic.Field(ge=0)]
# A bare file name: a manifest must not reach outside its folder.
FileName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]

_RepetitionPenalty = Annotated[
    float, pydantic.Field(ge=MIN_REPETITION_PENALTY, le=MAX_REPETITION_PENALTY)
]
_Sequence = Annotated[tuple[TokenId, ...], pydantic.Field(min_length=2, strict=False)]


class Record(pydantic.BaseModel):
    """Part of a manifest: immutable, and without fields that nobody knows."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class Task(enum.StrEnum):
    """What a model can do."""

    GENERATE = "generate"
    EMBED = "embed"
    CLASSIFY = "classify"
    CLASSIFY_TOKENS = "classify_tokens"
    RERANK = "rerank"
    FILL_MASK = "fill_mask"


SOURCE_LANGUAGE: Literal["source_language"] = "source_language"
TARGET_LANGUAGE: Literal["target_language"] = "target_language"
_SourcePart = TokenId | Literal["source_language", "target_language"]


class TargetMode(enum.StrEnum):
    """Where a multilingual model reads which language to write."""

    FORCED_BOS = "forced_bos"
    """The first generated token is the language's (M2M100, NLLB, mBART-50)."""
    DECODER_START = "decoder_start"
    """The decoder starts with the language's token (mBART)."""
    SOURCE = "source"
    """The source holds the language's token (multilingual Marian)."""


class LanguageRecord(Record):
    """The languages of a multilingual model, and how they are told to it."""

    source: dict[str, TokenId]
    """Token of each language that can be read; empty when the model is not told."""
    target: dict[str, TokenId]
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


class GenerationRecord(Record):
    """How to decode with an encoder-decoder model."""

    encode_graph: FileName
    decode_graph: FileName
    rank_graph: FileName | None = None
    """What ranks vocabularies for beam search; without it numpy does, and takes longer."""
    move_rows_graph: FileName | None = None
    """Copies rows of caches in the memory of a device; None in formats for processors alone."""
    best_tokens_graph: FileName | None = None
    """Finds the best tokens in the memory of a device; comes with ``move_rows_graph``."""
    target_tokenizer: FileName
    target_vocabulary_size: Count
    max_target_length: Annotated[int, pydantic.Field(ge=1, le=MAX_TARGET_LENGTH)]
    """Most target tokens, the start token not counted."""
    num_layers: Count
    """Decoder layers, L."""
    num_heads: Count
    head_size: Count
    decoder_start_token_id: TokenId
    eos_token_id: TokenId
    pad_token_id: TokenId
    max_new_tokens: Count
    """Default; requests may set their own up to ``max_target_length``."""
    num_beams: Count
    length_penalty: Annotated[
        float, pydantic.Field(ge=MIN_LENGTH_PENALTY, le=MAX_LENGTH_PENALTY, allow_inf_nan=False)
    ]
    early_stopping: bool = False
    min_new_tokens: Annotated[int, pydantic.Field(ge=0)] = 0
    no_repeat_ngram_size: Annotated[int, pydantic.Field(ge=0)] = 0
    repetition_penalty: _RepetitionPenalty = 1.0
    forced_bos_token_id: TokenId | None = None
    forced_eos_token_id: TokenId | None = None
    suppressed_tokens: Annotated[tuple[TokenId, ...], pydantic.Field(strict=False)] = ()
    """Never generated, unless forced."""
    suppressed_sequences: Annotated[tuple[_Sequence, ...], pydantic.Field(strict=False)] = ()
    """Never generated: the last token is barred where the others went before."""
    do_sample: bool = False
    temperature: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int, pydantic.Field(ge=0)] = 0
    top_p: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0
    languages: LanguageRecord | None = None
    """None for models that are not told languages."""

    @pydantic.model_validator(mode="after")
    def _check_ranges(self) -> Self:
        if (self.move_rows_graph is None) != (self.best_tokens_graph is None):
            raise ValueError("move_rows_graph and best_tokens_graph must come together")
        if self.max_new_tokens > self.max_target_length:
            raise ValueError("max_new_tokens exceeds max_target_length")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens exceeds max_new_tokens")
        if self.do_sample and self.num_beams > 1:
            raise ValueError("do_sample and several beams exclude each other")
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
            f"suppressed token {token_id}": token_id
            for token_id in itertools.chain(self.suppressed_tokens, *self.suppressed_sequences)
        }
        if self.languages is not None:
            token_ids |= {f"language {code}": one for code, one in self.languages.target.items()}
        for name, token_id in token_ids.items():
            if token_id is not None and token_id >= self.target_vocabulary_size:
                raise ValueError(f"{name} is not in the target vocabulary")
        return self


SPARSE_POOLINGS = ("splade_max", "splade_sum")
"""How weights of tokens become a sparse embedding: the largest of each entry, or their sum."""


class SparseRecord(Record):
    """What makes an embedding a sparse one, a weight for each entry of the vocabulary."""

    activation: Literal["relu", "log1p_relu"]
    """What makes weights of logits: log(1 + relu(x)), or the log(1 + x) of that."""
    max_active_dims: Count | None = None
    """Default limit of weights of an embedding, the largest being kept; None is no limit."""


class PromptedRecord(Record):
    """What is put before inputs, as a model was trained to be used."""

    prompts: dict[str, str] = pydantic.Field(default_factory=dict)
    """Texts that requests may have put before inputs, by name."""
    default_prompt_name: str | None = None
    """The prompt of requests that name none; None is no prompt."""

    @pydantic.model_validator(mode="after")
    def _check_prompts(self) -> Self:
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise ValueError(f"default prompt {self.default_prompt_name!r} is not among prompts")
        return self


class EmbeddingRecord(PromptedRecord):
    """How to embed with an encoder-only model."""

    embed_graph: FileName
    embedding_size: Count
    pooling: Annotated[str, pydantic.Field(pattern=r"^[a-z_]+(\+[a-z_]+)*$")]
    """How states become one vector: "mean", "cls", ...; several modes are joined by "+"; or one of
    the sparse ways."""
    normalize: bool
    """Whether the model is meant to be used with embeddings of length 1."""
    token_embedding_size: Count | None = None
    """Numbers in the state of a token, M; None in folders that were written before it was."""
    sparse: SparseRecord | None = None
    """None for embeddings that are dense."""

    @pydantic.model_validator(mode="after")
    def _check_sparse(self) -> Self:
        if (self.sparse is not None) != (self.pooling in SPARSE_POOLINGS):
            raise ValueError(
                f"{' or '.join(SPARSE_POOLINGS)} and section sparse must come together"
            )
        return self


class _PredictionRecord(Record):
    graph: FileName
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
    unknown_token_id: TokenId | None = None
    """Stands for words without a token, always as a word of its own; None if there is no such."""


class RerankingRecord(_PredictionRecord, PromptedRecord):
    """How to score pairs of a query and a text; prompts are put before queries."""

    activation: Literal["sigmoid", "identity"]
    """What makes a score of the one logit when a request does not say."""


class MaskFillingRecord(_PredictionRecord):
    """How to fill masked tokens. The graph returns logits for the masks only, row after row."""

    mask_token_id: TokenId
    mask_token: str
    """As it stands in texts."""


PredictionRecord = (
    ClassificationRecord | TokenClassificationRecord | RerankingRecord | MaskFillingRecord
)
