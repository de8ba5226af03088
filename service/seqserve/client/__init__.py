"""Calls a seqserve server from Python: ``Client`` blocks, ``AsyncClient`` awaits; both are typed.

Failed calls raise :class:`CallError`. Calls that were not accepted are retried by gRPC itself, with
back-off, and not before the server's push-back allows.
"""

from seqserve.client.aio import AsyncClient
from seqserve.client.arguments import Priority
from seqserve.client.embedding_messages import EmbedOptions
from seqserve.client.errors import CallError
from seqserve.client.generation_messages import GenerateOptions
from seqserve.client.head_settings import (
    ClassificationSettings,
    MaskFillingSettings,
    RerankingSettings,
    TokenClassificationSettings,
)
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
    Embeddings,
    EmbeddingSettings,
    EmbeddingWindow,
    Generation,
    GenerationSettings,
    Hypothesis,
    ModelInfo,
    Piece,
    ScoredToken,
    Scoring,
    SparseSettings,
    SparseVector,
    TargetScore,
    Timing,
    Token,
    TokenEmbeddings,
    TokenLogProbability,
)
from seqserve.client.stream import AsyncGenerationStream, GenerationStream
from seqserve.client.sync import Client

__all__ = [
    "AsyncClient",
    "AsyncGenerationStream",
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
]
