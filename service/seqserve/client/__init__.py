"""Calls a seqserve server from Python: ``Client`` blocks, ``AsyncClient`` awaits; both are typed.

Failed calls raise :class:`CallError`. Calls that were not accepted are retried by gRPC itself, with
back-off, and not before the server's push-back allows.
"""

from seqserve.client.aio import AsyncClient
from seqserve.client.arguments import Priority
from seqserve.client.attention_messages import AttendOptions
from seqserve.client.attention_results import Attention, AttentionWeights
from seqserve.client.embedding_messages import EmbedOptions
from seqserve.client.errors import CallError
from seqserve.client.generation_messages import GenerateOptions
from seqserve.client.head_settings import (
    ClassificationSettings,
    MaskFillingSettings,
    RerankingSettings,
    TokenClassificationSettings,
)
from seqserve.client.model_info import (
    AttentionSettings,
    EmbeddingSettings,
    GenerationSettings,
    ModelInfo,
    SparseSettings,
)
from seqserve.client.pharaoh import to_pharaoh
from seqserve.client.prediction_messages import EncodingOptions
from seqserve.client.prediction_results import (
    Classification,
    Entity,
    LabelScore,
    MaskFilling,
    MaskToken,
    RankedDocument,
    TokenClassification,
)
from seqserve.client.results import (
    Alignment,
    Embeddings,
    EmbeddingWindow,
    Generation,
    Hypothesis,
    Piece,
    ScoredToken,
    Scoring,
    SparseVector,
    TargetScore,
    Timing,
    Token,
    TokenEmbeddings,
    TokenLogProbability,
)
from seqserve.client.stream import AsyncGenerationStream, GenerationStream
from seqserve.client.sync import Client
from seqserve.client.word_alignment import WordAlignment, align_words

__all__ = [
    "Alignment",
    "AsyncClient",
    "AsyncGenerationStream",
    "AttendOptions",
    "Attention",
    "AttentionSettings",
    "AttentionWeights",
    "CallError",
    "Classification",
    "ClassificationSettings",
    "Client",
    "EmbedOptions",
    "EmbeddingSettings",
    "EmbeddingWindow",
    "Embeddings",
    "EncodingOptions",
    "Entity",
    "GenerateOptions",
    "Generation",
    "GenerationSettings",
    "GenerationStream",
    "Hypothesis",
    "LabelScore",
    "MaskFilling",
    "MaskFillingSettings",
    "MaskToken",
    "ModelInfo",
    "Piece",
    "Priority",
    "RankedDocument",
    "RerankingSettings",
    "ScoredToken",
    "Scoring",
    "SparseSettings",
    "SparseVector",
    "TargetScore",
    "Timing",
    "Token",
    "TokenClassification",
    "TokenClassificationSettings",
    "TokenEmbeddings",
    "TokenLogProbability",
    "WordAlignment",
    "align_words",
    "to_pharaoh",
]
