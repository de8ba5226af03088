"""Calls a seqserve server from Python: ``Client`` blocks, ``AsyncClient`` awaits; both are typed.

Failed calls raise :class:`CallError`. Calls that were not accepted are retried by gRPC itself, with
back-off, and not before the server's push-back allows.
"""

from seqserve.client.aio import AsyncClient
from seqserve.client.arguments import Priority
from seqserve.client.errors import CallError
from seqserve.client.generation_messages import GenerateOptions
from seqserve.client.results import (
    Embeddings,
    EmbeddingSettings,
    Generation,
    GenerationSettings,
    Hypothesis,
    ModelInfo,
    Piece,
    ScoredToken,
    Scoring,
    TargetScore,
    Timing,
    Token,
    TokenLogProbability,
)
from seqserve.client.stream import AsyncGenerationStream, GenerationStream
from seqserve.client.sync import Client

__all__ = [
    "AsyncClient",
    "AsyncGenerationStream",
    "CallError",
    "Client",
    "EmbeddingSettings",
    "Embeddings",
    "GenerateOptions",
    "Generation",
    "GenerationSettings",
    "GenerationStream",
    "Hypothesis",
    "ModelInfo",
    "Piece",
    "Priority",
    "ScoredToken",
    "Scoring",
    "TargetScore",
    "Timing",
    "Token",
    "TokenLogProbability",
]
