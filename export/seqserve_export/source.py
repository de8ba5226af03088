"""What export starts from: a checkpoint read into memory, ready to be written as a served model."""

import dataclasses

from tokenizers import Tokenizer
from torch import nn

from seqserve.manifest import VerificationRecord
from seqserve.task_record import (
    SOURCE_LANGUAGE,
    TARGET_LANGUAGE,
    LanguageRecord,
    MaskFillingRecord,
    PredictionRecord,
    SparseRecord,
    Task,
)
from seqserve_export.checkpoint import GenerationConfig
from seqserve_export.decoding_range import check_ranges
from seqserve_export.encoder_config import EncoderConfig
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.errors import CheckpointError
from seqserve_export.generation_reference import ReferenceCase
from seqserve_export.heads import Head
from seqserve_export.pooling import Pooling, PoolingMode
from seqserve_export.sparse_head import SparseHead
from seqserve_export.tokenization.folder_tokenizers import FolderTokenizer
from seqserve_export.transformer import Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationSource:
    """An encoder-decoder model."""

    name: str
    family: str
    model: Transformer
    generation: GenerationConfig
    source_tokenizer: FolderTokenizer
    target_tokenizer: FolderTokenizer | None
    """None when source and target share one."""
    languages: LanguageRecord | None = None
    """None for models that are not told languages."""
    samples: tuple[str, ...]
    """Real sources to verify with; may be empty."""
    reference: tuple[ReferenceCase, ...] = ()
    """What the original made of the same checkpoint; empty for our own."""
    original: str = "transformers"
    """What computed the reference."""
    checks: tuple[VerificationRecord, ...] = ()
    """What was verified while the checkpoint was read."""
    notes: tuple[str, ...] = ()
    """What whoever serves the model should know about its checkpoint."""

    def encode(self, text: str) -> list[int]:
        """Tokens of a source as the server would make them, cut to what the model can read.

        Between languages the model has no default for, the first ones are taken.
        """
        config, languages = self.model.config, self.languages
        if languages is None:
            tokens: list[int] = self.source_tokenizer.encode(text).ids
            return tokens[: config.max_source_length]
        chosen = {
            SOURCE_LANGUAGE: _choose(languages.source, languages.default_source),
            TARGET_LANGUAGE: _choose(languages.target, languages.default_target),
        }
        prefix, suffix = (
            [chosen[part] if isinstance(part, str) else part for part in parts]
            for parts in (languages.source_prefix, languages.source_suffix)
        )
        tokens = self.source_tokenizer.encode(text, add_special_tokens=False).ids
        return [*prefix, *tokens[: config.max_source_length - len(prefix) - len(suffix)], *suffix]

    def encode_samples(self) -> list[list[int]]:
        """Tokens of the samples; those without tokens are left out."""
        return [tokens for text in self.samples if (tokens := self.encode(text))]

    def __post_init__(self) -> None:
        """Checks that the parts fit each other.

        Raises:
            CheckpointError: They do not.
        """
        config, generation = self.model.config, self.generation
        check_vocabulary(self.source_tokenizer, config.source_vocabulary_size, "source")
        check_vocabulary(
            self.target_tokenizer or self.source_tokenizer, config.target_vocabulary_size, "target"
        )
        for name in (
            "decoder_start_token_id",
            "eos_token_id",
            "pad_token_id",
            "forced_bos_token_id",
            "forced_eos_token_id",
        ):
            token_id = getattr(generation, name)
            if token_id is not None and not 0 <= token_id < config.target_vocabulary_size:
                raise CheckpointError(
                    f"`{name}` must be in the target vocabulary of "
                    f"{config.target_vocabulary_size}, but is {token_id}"
                )
        if not 1 <= generation.max_new_tokens <= config.max_target_length:
            raise CheckpointError(
                f"`max_new_tokens` must be from 1 to `max_target_length` "
                f"{config.max_target_length}, but is {generation.max_new_tokens}"
            )
        if not 1 <= generation.num_beams <= config.target_vocabulary_size // 2:
            raise CheckpointError(
                "`num_beams` must be from 1 to half of the target vocabulary of "
                f"{config.target_vocabulary_size}, but is {generation.num_beams}"
            )
        check_ranges(generation, config.max_target_length)


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Texts that requests may have put before inputs."""

    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    """By name."""
    default: str | None = None
    """The prompt of requests that name none; None for no prompt."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingSource:
    """An encoder-only model that embeds texts."""

    name: str
    family: str
    model: EncoderModel
    pooling: tuple[PoolingMode, ...] | SparseHead
    """Modes, or what makes sparse embeddings."""
    projection: nn.Sequential
    """What follows pooling; often nothing."""
    embedding_size: int
    is_normalized: bool
    """Whether the model is meant to be used with embeddings of length 1."""
    tokenizer: Tokenizer
    max_source_length: int
    """In tokens, special tokens included."""
    samples: tuple[str, ...]
    """Real sources to verify with."""
    checks: tuple[VerificationRecord, ...]
    """How tokenizer and model were compared with those of ``transformers``."""
    prompts: Prompts = dataclasses.field(default_factory=Prompts)
    max_active_dims: int | None = None
    """Default limit of weights of sparse embeddings; None is no limit."""
    notes: tuple[str, ...] = ()
    """What was decided for want of a statement in the folder."""

    def __post_init__(self) -> None:
        """Checks that the parts fit each other.

        Raises:
            CheckpointError: They do not.
        """
        check_encoder(self.model, self.tokenizer, self.max_source_length)

    @property
    def pooler(self) -> Pooling | SparseHead:
        """What makes one vector of the states of a source."""
        return self.pooling if isinstance(self.pooling, SparseHead) else Pooling(*self.pooling)

    @property
    def pooling_name(self) -> str:
        """Its name in manifests."""
        if isinstance(self.pooling, SparseHead):
            return self.pooling.mode
        return "+".join(self.pooling)

    @property
    def sparse_record(self) -> SparseRecord | None:
        """What a manifest says of sparse embeddings; None of dense ones."""
        if not isinstance(self.pooling, SparseHead):
            return None
        return SparseRecord(
            activation=self.pooling.activation, max_active_dims=self.max_active_dims
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionSource:
    """An encoder-only model with a head: it classifies, reranks or fills masks."""

    name: str
    family: str
    task: Task
    model: EncoderModel
    head: Head
    record: PredictionRecord
    """How to use it, for the manifest."""
    tokenizer: Tokenizer
    max_source_length: int
    """In tokens, special tokens included."""
    samples: tuple[str, ...]
    """Real sources to verify with."""
    checks: tuple[VerificationRecord, ...]
    """How tokenizer and model were compared with those of ``transformers``."""
    notes: tuple[str, ...] = ()
    """What was decided for want of a statement in the folder."""

    def __post_init__(self) -> None:
        """Checks that the parts fit each other.

        Raises:
            CheckpointError: They do not.
        """
        check_encoder(self.model, self.tokenizer, self.max_source_length)

    @property
    def mask_token(self) -> int | None:
        """The token whose places are filled; None for other tasks."""
        if isinstance(self.record, MaskFillingRecord):
            return self.record.mask_token_id
        return None


Source = GenerationSource | EmbeddingSource | PredictionSource


def check_encoder(model: EncoderModel, tokenizer: Tokenizer, max_source_length: int) -> None:
    """Checks that tokenizer and longest source fit an encoder.

    Raises:
        CheckpointError: They do not.
    """
    check_vocabulary(tokenizer, model.config.vocabulary_size, "source")
    check_source_length(max_source_length, model.config)


def check_source_length(max_source_length: int, config: EncoderConfig) -> None:
    """Checks that a model has positions for its longest source.

    Raises:
        CheckpointError: It does not.
    """
    if not 1 <= max_source_length <= config.max_length:
        raise CheckpointError(
            f"the longest source must be from 1 to the {config.max_length} positions of the "
            f"model, but is {max_source_length}"
        )


def _choose(codes: dict[str, int], default: str | None) -> int:
    return codes[default or min(codes)] if codes else 0


def check_vocabulary(tokenizer: FolderTokenizer, num_rows: int, side: str) -> None:
    """Checks that every token has a row in the embedding table.

    Raises:
        CheckpointError: The tokenizer knows ids beyond the table.
    """
    num_tokens = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if num_tokens > num_rows:
        raise CheckpointError(
            f"the {side} tokenizer has ids up to {num_tokens - 1}, but the model has only "
            f"{num_rows} embeddings"
        )
